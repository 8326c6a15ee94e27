"""`create_app`: the platform API and the tenant API in one application."""

from __future__ import annotations

from fastapi import FastAPI

from control_plane import __version__
from control_plane.api import clusters, health, members, operations, revocations, tenants
from control_plane.api.documented import document
from control_plane.api.limits import BodyLimit
from control_plane.api.readiness import Readiness
from control_plane.api.routes import routes
from control_plane.api.tenant_paths import add_tenant_paths
from control_plane.identity.middleware import IdentityMiddleware
from control_plane.problems import install_problems
from control_plane.service import ControlPlane

DESCRIPTION = """\
Onboards tenants (`/tenants`, with a platform token) and serves their data (`/api`, with a tenant token).
The tenant of a request comes from its verified token and from nowhere else.
"""


def create_app(plane: ControlPlane) -> FastAPI:
    """The application over an open `plane`, which outlives it."""
    app = FastAPI(title="Tenant control plane", version=__version__, description=DESCRIPTION)
    app.state.control_plane = plane
    app.state.readiness = Readiness(plane.databases, plane.feed)
    for module in (tenants, members, revocations, operations, clusters, health):
        app.include_router(module.router)
    app.router.routes[:0] = routes(plane)  # first, because every route before a hot one costs it a match
    app.add_middleware(BodyLimit)
    app.add_middleware(IdentityMiddleware, verifier=plane.verifier)
    install_problems(app)
    template = plane.templates[plane.settings.template]
    document(app, lambda published: add_tenant_paths(published, template))
    return app
