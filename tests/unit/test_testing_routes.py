"""The check that every route of an application demands a tenant or is public by name."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI

from control_plane.tenancy import CurrentPrincipal, TenantConnection, TenantSession
from control_plane.tenancy.dependencies import TenantToken
from control_plane.testing import unbound_routes
from control_plane.testing.routes import routes_of


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


def test_routes_of_included_routers_are_seen_with_their_prefixes() -> None:
    inner, outer = APIRouter(prefix="/inner"), APIRouter(dependencies=[Depends(word)])

    @inner.get("/{number}")
    async def one(number: int, session: TenantSession, page: int = 1) -> None: ...

    @inner.get("/open")
    async def forgotten() -> None: ...

    outer.include_router(inner, prefix="/outer")
    app = FastAPI()
    app.include_router(outer)
    bound = FastAPI()
    bound.include_router(inner, dependencies=[Depends(TenantToken())])
    assert unbound_routes(app) == ["/outer/inner/open"]
    assert unbound_routes(bound) == []
    first = routes_of(app)[0]
    assert (str(first), first.parameters, first.needed) == ("GET /outer/inner/{number}", ("number",), ("word",))
    assert set(first.query) == {"page", "word"}
    assert first.demands_tenant


def word(word: str) -> str:
    return word
