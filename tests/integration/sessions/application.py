"""An application on `control_plane.tenancy`, whose tenants have tables of the reference template."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_tenant_token
from control_plane.pools.sessions import TenantSessions
from control_plane.settings import Settings
from control_plane.tenancy import CurrentPrincipal, TenantSession, install_tenancy
from tests.support.members import Member, Members

MODES = ("shared", "schema", "database")

NAMES = text("SELECT name FROM tb_project ORDER BY name")

ADD = text("INSERT INTO tb_project (name) VALUES (:name)")


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/public")
    async def public() -> str:
        return "open"

    @app.get("/whoami")
    async def whoami(principal: CurrentPrincipal) -> str:
        return str(principal.tenant_id)

    @app.get("/names")
    async def names(session: TenantSession) -> list[str]:
        return list(await session.scalars(NAMES))

    @app.get("/projects")
    async def projects(session: TenantSession) -> list[dict[str, Any]]:
        rows = await session.execute(text("SELECT * FROM tb_project"))
        return [dict(row) for row in rows.mappings()]

    @app.post("/names")
    async def add(name: str, session: TenantSession) -> str:
        await session.execute(ADD, {"name": name})
        return name

    @app.post("/commit-between")
    async def commit_between(name: str, session: TenantSession) -> list[str]:
        await session.execute(ADD, {"name": name})
        await session.commit()
        await session.execute(ADD, {"name": f"{name} again"})
        await session.rollback()
        return list(await session.scalars(NAMES))

    @app.post("/refuse")
    async def refuse(name: str, session: TenantSession) -> str:
        await session.execute(ADD, {"name": name})
        raise HTTPException(409, "no")

    return app


class World:
    """An application with tenants."""

    def __init__(self, members: Members, settings: Settings) -> None:
        self.members = members
        self.settings = settings
        self.app = application()
        install_tenancy(self.app, settings)

    @property
    def sessions(self) -> TenantSessions:
        sessions: TenantSessions = self.app.state.tenancy.sessions
        return sessions

    def token(self, member: Member) -> dict[str, str]:
        token = mint_tenant_token(development_issuer(self.settings), member.id, member.user_id)
        return {"Authorization": f"Bearer {token}"}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.app.router.lifespan_context(self.app))
            yield await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://app", timeout=60)
            )


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def engine_of(sessions: TenantSessions) -> AsyncEngine:
    return sessions._engine
