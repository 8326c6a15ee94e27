"""The check that every route of an application demands a tenant or is public by name."""

from __future__ import annotations

from fastapi import FastAPI

from control_plane.tenancy import CurrentPrincipal, TenantConnection, TenantSession
from control_plane.testing import unbound_routes


def test_a_route_without_a_tenant_is_found() -> None:
    app = FastAPI()

    @app.get("/session")
    async def session(session: TenantSession) -> None: ...

    @app.get("/connection")
    async def connection(connection: TenantConnection) -> None: ...

    @app.get("/whoami")
    async def whoami(principal: CurrentPrincipal) -> None: ...

    assert unbound_routes(app) == []

    @app.get("/open")
    async def forgotten() -> None: ...

    app.mount("/mounted", FastAPI())
    assert unbound_routes(app) == ["/mounted", "/open"]
    assert unbound_routes(app, {"/open", "/mounted"}) == []
