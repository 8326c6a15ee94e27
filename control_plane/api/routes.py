"""The routes below /api, in the order in which they are tried."""

from __future__ import annotations

from starlette.routing import Route

from control_plane.api import resources
from control_plane.api.deprecations import ReadDeprecations
from control_plane.api.resources import Services


def routes(services: Services) -> list[Route]:
    """`scope["state"]` has to hold the principal."""
    register = Route("/api/{version}/deprecations", ReadDeprecations(services), name="read_deprecations")
    return [register, *resources.routes(services)]  # before the resources, which may not have its name
