"""A tenant API whose callers are given instead of proved, calls of it, and what an answer must look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.errors import InvalidToken
from control_plane.identity.principal import Principal
from control_plane.pools.deprecated_calls import DeprecatedCalls
from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools
from control_plane.templates import Templates
from tests.support.members import Member

MODES = ("shared", "schema", "database")


@dataclass
class Services:
    templates: Templates
    placements: Placements
    request_pools: RequestPools
    deprecated_calls: DeprecatedCalls


class Identity:
    """Stands where the identity middleware stands: header `caller: <tenant> <user>` for a verified principal."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            header = dict(scope["headers"]).get(b"caller", b"").decode().split()
            error = InvalidToken() if header == ["bad"] else None
            scope["state"] = {"principal": principal(*header) if len(header) == 2 else None, "identity_error": error}
        await self.app(scope, receive, send)


def principal(tenant: str, user: str) -> Principal:
    kind = "platform" if tenant == "platform" else "tenant"
    return Principal(
        kind="platform" if kind == "platform" else "tenant",
        subject=user,
        user_id=UUID(user),
        tenant_id=None if kind == "platform" else UUID(tenant),
        roles=("editor",),
        scopes=frozenset(),
        issuer="tests",
        token_id=None,
        expires_at=2e9,
    )


def as_(member: Member) -> dict[str, str]:
    return {"caller": f"{member.id} {member.user_id}"}


async def create(client: httpx.AsyncClient, member: Member, name: str, version: str = "v1") -> dict[str, Any]:
    answer = await client.post(f"/api/{version}/rpc/create_project", json={"name": name}, headers=as_(member))
    assert answer.status_code == 200, answer.text
    project: dict[str, Any] = answer.json()["data"]["project"]
    return project


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert set(body) == {
        "type", "title", "status", "detail", "instance", "code", "message", "details", "hint", "errors"
    }  # fmt: skip
    return body
