"""Tenants for your own FastAPI application: `install_tenancy(app, settings)`, then a `TenantSession` in the routes.

`TenantConnection` is the same with plain asyncpg, `tenant_context` the same for scripts and background jobs.
"""

from control_plane.settings import Settings
from control_plane.tenancy.context import tenant_context
from control_plane.tenancy.dependencies import CurrentPrincipal, TenantConnection, TenantSession
from control_plane.tenancy.install import install_tenancy

__all__ = ["CurrentPrincipal", "Settings", "TenantConnection", "TenantSession", "install_tenancy", "tenant_context"]
