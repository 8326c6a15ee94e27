"""Checks for the tests of an application on `control_plane.tenancy`. Nothing of the service imports this."""

from control_plane.testing.routes import unbound_routes

__all__ = ["unbound_routes"]
