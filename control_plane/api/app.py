"""`create_app`: the platform API and the tenant API in one application."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from control_plane import __version__
from control_plane.api import clusters, health, members, migrations, operations, pins, revocations, tenants
from control_plane.api.documented import document
from control_plane.api.events import Streams
from control_plane.api.limits import BodyLimit
from control_plane.api.readiness import Readiness
from control_plane.api.routes import routes
from control_plane.api.shortcut import Shortcut
from control_plane.api.tenant_paths import add_tenant_paths
from control_plane.identity.middleware import IdentityMiddleware
from control_plane.problems import install_problems
from control_plane.service import ControlPlane

DESCRIPTION = """\
Onboards tenants (`/tenants`, with a platform token) and serves their data (`/api`, with a tenant token).
The tenant of a request comes from its verified token and from nowhere else.
"""


class Application(FastAPI):
    """FastAPI behind one identity for all requests, and past it the tenant API's own way."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(title="Tenant control plane", version=__version__, description=DESCRIPTION)
        hot = routes(plane)
        # Also here, for what the shortcut leaves: addresses that end with a slash, and whoever lists the routes.
        self.router.routes[:0] = hot
        self._entry = IdentityMiddleware(Shortcut(hot, super().__call__), plane.verifier)
        self._readiness = Readiness(plane.databases, plane.feed)
        self.state.control_plane = plane
        self.state.readiness = self._readiness
        self.state.streams = self._streams = Streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._entry(scope, receive, send)

    def drain(self) -> None:
        """Not be ready from now on, whatever else is; all requests are still served."""
        self._readiness.drain()

    def end_streams(self) -> None:
        """Let answers end that would go on for as long as somebody listens."""
        self._streams.ending.set()


def create_app(plane: ControlPlane) -> Application:
    """The application over an open `plane`, which outlives it."""
    app = Application(plane)
    for module in (tenants, members, pins, migrations, revocations, operations, clusters, health):
        app.include_router(module.router)
    app.add_middleware(BodyLimit)
    install_problems(app)
    template = plane.templates[plane.settings.template]
    document(app, lambda published: add_tenant_paths(published, template))
    return app
