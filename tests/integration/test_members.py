"""Who is let in to a tenant, over HTTP: the list in its database is asked before any token is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import select

from control_plane.api.app import create_app
from control_plane.registry.models import AuditEvent, Cluster
from control_plane.service import ControlPlane
from control_plane.settings import Settings
from tests.support.callers import client, open_plane, platform_headers, tenant_headers


@pytest_asyncio.fixture
async def plane(settings: Settings, cluster: Cluster) -> AsyncIterator[ControlPlane]:
    async with open_plane(settings) as opened:
        yield opened


@pytest.fixture
def app(plane: ControlPlane) -> FastAPI:
    return create_app(plane)


@pytest_asyncio.fixture
async def api(app: FastAPI, plane: ControlPlane) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app, platform_headers(plane)) as opened:
        yield opened


async def onboard(api: httpx.AsyncClient, isolation: str) -> UUID:
    answer = await api.post("/tenants", json={"slug": "acme", "name": "Acme", "isolation": isolation})
    assert answer.status_code == 201, answer.text
    return UUID(answer.json()["id"])


@pytest.mark.parametrize("isolation", ["shared", "schema", "database"])
async def test_a_list_takes_effect_at_once(
    api: httpx.AsyncClient, app: FastAPI, plane: ControlPlane, isolation: str
) -> None:
    tenant, user = await onboard(api, isolation), uuid4()
    assert (await api.get("/tenants/acme/members")).json() == {"policy": "token", "members": []}

    async with client(app, tenant_headers(plane, tenant, user)) as caller:
        assert (await caller.get("/api/v2/projects")).status_code == 200
        answer = await api.patch("/tenants/acme/members", json={"policy": "listed"})
        assert (answer.status_code, answer.json()) == (200, {"policy": "listed", "members": []})
        refused = await caller.get("/api/v2/projects")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")

        answer = await api.put(f"/tenants/acme/members/{user}", json={"roles": ["moderator", "moderator"]})
        assert (answer.status_code, answer.json()) == (200, {"user_id": str(user), "roles": ["moderator"]})
        assert (await caller.get("/api/v2/projects")).status_code == 200

        assert (await api.delete(f"/tenants/acme/members/{user}")).status_code == 204
        assert (await caller.get("/api/v2/projects")).status_code == 403
        await api.patch("/tenants/acme/members", json={"policy": "token"})
        assert (await caller.get("/api/v2/projects")).status_code == 200

    async with plane.databases.registry() as session:
        actions = await session.scalars(
            select(AuditEvent.action).where(AuditEvent.action.like("tenant.member%")).order_by(AuditEvent.id)
        )
    assert list(actions) == [
        "tenant.membership", "tenant.member_put", "tenant.member_remove", "tenant.membership",
    ]  # fmt: skip


async def test_what_is_wrong_is_said(api: httpx.AsyncClient, app: FastAPI) -> None:
    await onboard(api, "shared")
    user = uuid4()
    for request, status, code in (
        (api.get("/tenants/nobody/members"), 404, "tenant_not_found"),
        (api.delete(f"/tenants/acme/members/{user}"), 404, "member_not_found"),
        (api.patch("/tenants/acme/members", json={"policy": "open"}), 400, "invalid_input"),
        (api.put("/tenants/acme/members/somebody", json={"roles": []}), 400, "invalid_input"),
        (api.put(f"/tenants/acme/members/{user}", json={"roles": ["a b"]}), 400, "invalid_input"),
    ):
        answer = await request
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    async with client(app) as stranger:
        assert (await stranger.get("/tenants/acme/members")).status_code == 401


async def test_a_tenant_that_goes_keeps_no_members(api: httpx.AsyncClient, plane: ControlPlane) -> None:
    tenant = await onboard(api, "shared")
    await api.put(f"/tenants/acme/members/{uuid4()}", json={"roles": []})
    assert (await api.delete("/tenants/acme")).status_code == 204
    async with plane.databases.registry() as session:
        cluster = (await session.scalars(select(Cluster))).one()
    async with plane.databases.admin(cluster) as connection:
        left = await connection.fetchval("SELECT count(*) FROM tenancy.members WHERE tenant_id = $1", tenant)
    assert left == 0
