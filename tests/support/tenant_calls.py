"""Calls of the tenant API over HTTP, by callers whose identity is given instead of proved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from starlette.applications import Starlette

from control_plane.api.routes import routes
from control_plane.identity.principal import Principal
from control_plane.pools.deprecated_calls import DeprecatedCalls
from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools
from control_plane.problems import install_problems
from control_plane.templates import Templates
from tests.support.members import Member, Members


@dataclass
class _Services:
    templates: Templates
    placements: Placements
    request_pools: RequestPools
    deprecated_calls: DeprecatedCalls


@dataclass
class TenantCalls:
    """The tenant API; each call is made with a principal such as the identity middleware leaves behind."""

    app: Starlette
    counts: DeprecatedCalls

    async def aclose(self) -> None:
        """Write the counts of deprecated calls, as a service that stops does."""
        await self.counts.aclose()

    async def get(self, principal: Principal, path: str, **options: Any) -> httpx.Response:
        return await self._call(principal, "GET", path, **options)

    async def post(self, principal: Principal, path: str, body: object, **options: Any) -> httpx.Response:
        return await self._call(principal, "POST", path, json=body, **options)

    async def _call(self, principal: Principal, method: str, path: str, **options: Any) -> httpx.Response:
        async def identified(scope: Any, receive: Any, send: Any) -> None:
            scope["state"] = {"principal": principal, "identity_error": None}
            await self.app(scope, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(identified), base_url="http://api") as client:
            return await client.request(method, path, **options)


def principal(member: Member, user_id: UUID, *roles: str) -> Principal:
    """A verified user of a tenant, with the roles of the token."""
    return Principal(
        kind="tenant",
        subject=str(user_id),
        user_id=user_id,
        tenant_id=member.id,
        roles=roles,
        scopes=frozenset(),
        issuer="tests",
        token_id=None,
        expires_at=2e9,
    )


@asynccontextmanager
async def tenant_calls(members: Members) -> AsyncIterator[TenantCalls]:
    """The tenant API over the tenants of one installation."""
    pools = RequestPools(members.databases, members.databases.settings)
    counts = DeprecatedCalls(members.databases)
    app = Starlette(routes=routes(_Services(members.templates, Placements(members.databases), pools, counts)))
    install_problems(app)
    try:
        yield TenantCalls(app, counts)
    finally:
        await counts.aclose()
        await pools.aclose()
