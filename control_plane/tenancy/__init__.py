"""Tenants for your own FastAPI application: `install_tenancy(app, settings)`, then a `TenantSession` in the routes."""

from control_plane.settings import Settings
from control_plane.tenancy.dependencies import CurrentPrincipal, TenantSession
from control_plane.tenancy.install import install_tenancy

__all__ = ["CurrentPrincipal", "Settings", "TenantSession", "install_tenancy"]
