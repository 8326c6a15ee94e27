"""An open control plane on the session's server, and callers of its API in the same process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import httpx
from fastapi import FastAPI

from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_platform_token, mint_tenant_token
from control_plane.service import ControlPlane, initialise, open_control_plane
from control_plane.settings import Settings


def platform_headers(plane: ControlPlane, *scopes: str, subject: str = "tests") -> dict[str, str]:
    token = mint_platform_token(development_issuer(plane.settings), subject, scopes or ("*",))
    return {"Authorization": f"Bearer {token}"}


def tenant_headers(
    plane: ControlPlane, tenant_id: str | UUID, user_id: UUID | None = None, *roles: str
) -> dict[str, str]:
    issuer = development_issuer(plane.settings)
    token = mint_tenant_token(issuer, UUID(str(tenant_id)), user_id or uuid4(), roles)
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def client(app: FastAPI, headers: dict[str, str] | None = None) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers, timeout=60) as opened:
        yield opened


@asynccontextmanager
async def open_plane(settings: Settings, *, deaf: bool = False) -> AsyncIterator[ControlPlane]:
    """The control plane on a registry of the tests, with the template released and its one cluster registered.

    Started as a service is, unless it is to be `deaf` to what changes in the registry.
    """
    async with open_control_plane(settings) as plane:
        await initialise(plane, first_cluster=False, actor="tests")
        if not deaf:
            await plane.start()
        yield plane
