"""asyncpg connections of a tenant, and sessions where there is no request."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import ConfigurationError, ControlPlaneError, TenantMoving, TenantNotFound
from control_plane.pools import gate
from control_plane.pools.connections import BoundConnection, TenantConnections
from control_plane.tenancy import TenantConnection, tenant_context
from tests.integration.sessions.application import ADD, MODES, NAMES, World, code


def connections_of(world: World) -> TenantConnections:
    connections: TenantConnections = world.app.state.tenancy.connections
    return connections


async def fail(context: AbstractAsyncContextManager[Any], statement: Any) -> None:
    async with context as opened:
        await opened.execute(statement)
        raise ZeroDivisionError


async def end_early(context: AbstractAsyncContextManager[BoundConnection]) -> None:
    async with context as connection:
        await connection.execute("COMMIT")
        with pytest.raises(ControlPlaneError, match="has ended"):
            await connection.fetch("SELECT * FROM tb_project")


async def names(context: AbstractAsyncContextManager[AsyncSession]) -> list[str]:
    async with context as session:
        return list(await session.scalars(NAMES))


@pytest.mark.parametrize("mode", MODES)
async def test_a_route_may_ask_for_a_connection(world: World, client: httpx.AsyncClient, mode: str) -> None:
    @world.app.post("/raw")
    async def raw(name: str, connection: TenantConnection) -> list[str]:
        await connection.execute("INSERT INTO tb_project (name) VALUES ($1)", name)
        return [row["name"] for row in await connection.fetch("SELECT name FROM tb_project ORDER BY name")]

    acme, other = await world.members.add("acme", mode), await world.members.add("other", mode)
    for member in (acme, other):
        answer = await client.post("/raw", params={"name": member.slug}, headers=world.token(member))
        assert answer.json() == [member.slug]
        assert (await client.get("/names", headers=world.token(member))).json() == [member.slug]
    refused = await client.post("/raw", params={"name": ""}, headers=world.token(acme))
    assert code(refused) == (422, "unprocessable")
    assert code(await client.post("/raw", params={"name": "x"})) == (401, "unauthenticated")
    await world.members.set_state(acme, "suspended")
    answer = await client.post("/raw", params={"name": "x"}, headers=world.token(acme))
    assert code(answer) == (403, "tenant_suspended")


@pytest.mark.parametrize("mode", MODES)
async def test_a_connection_ends_with_its_transaction(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme = await world.members.add("acme", mode)
    connections = connections_of(world)
    async with connections.begin(acme.caller) as connection:
        await connection.execute("INSERT INTO tb_project (name) VALUES ('kept')")
    with pytest.raises(ControlPlaneError, match="ended"):
        await connection.fetch("SELECT * FROM tb_project")
    with pytest.raises(ZeroDivisionError):
        await fail(connections.begin(acme.caller), "INSERT INTO tb_project (name) VALUES ('lost')")
    with pytest.raises(ControlPlaneError, match="in the middle"):
        await end_early(connections.begin(acme.caller))
    assert (await client.get("/names", headers=world.token(acme))).json() == ["kept"]


async def test_a_connection_needs_a_tenant_and_a_user(world: World, client: httpx.AsyncClient) -> None:
    acme = await world.members.add("acme")
    for changed in ({"tenant_id": None}, {"user_id": None}):
        with pytest.raises(ControlPlaneError, match="not for a tenant"):
            async with connections_of(world).begin(acme.caller._replace(**changed)):  # type: ignore[arg-type]
                pass
    with pytest.raises(TenantNotFound):
        async with connections_of(world).begin(acme.caller._replace(tenant_id=uuid4())):
            pass


async def test_an_outdated_placement_is_looked_up_once_more(world: World, client: httpx.AsyncClient) -> None:
    acme = await world.members.add("acme")
    connections = connections_of(world)
    async with connections.begin(acme.caller):
        pass
    await world.members.set_state(acme, "active", epoch=2)
    with pytest.raises((TenantMoving, asyncpg.PostgresError)):
        async with connections.begin(acme.caller):
            pass
    await world.members.record(acme, epoch=2)
    async with connections.begin(acme.caller) as connection:
        assert await connection.fetchval("SELECT tenancy.current_tenant_id()") == acme.id


async def test_a_connection_that_is_not_bound_is_noticed(
    world: World, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "BIND", "SELECT $1::uuid, $2::uuid, $3::bigint, $4::text[], $5::boolean")
    with pytest.raises((AssertionError, asyncpg.PostgresError)):
        await test_a_connection_ends_with_its_transaction(world, client, "shared")


@pytest.mark.parametrize("mode", MODES)
async def test_a_job_has_a_session_of_its_tenant(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme, other = await world.members.add("acme", mode), await world.members.add("other", mode)
    async with tenant_context("acme", uuid4(), of=world.app) as session:
        await session.execute(ADD, {"name": "by a job"})
    async with tenant_context(acme.id, uuid4(), ["editor"], of=world.settings) as session:
        assert list(await session.scalars(NAMES)) == ["by a job"]
    with pytest.raises(ZeroDivisionError):
        await fail(tenant_context("acme", uuid4(), of=world.app), text("INSERT INTO tb_project (name) VALUES ('lost')"))
    assert await names(tenant_context("acme", uuid4(), of=world.app)) == ["by a job"]
    assert await names(tenant_context("other", uuid4(), of=world.app)) == []
    await world.members.set_state(other, "suspended")
    with pytest.raises(DBAPIError, match="suspended"):
        await names(tenant_context("other", uuid4(), of=world.app))


async def test_a_job_without_a_tenant_or_a_user_has_no_session(world: World, client: httpx.AsyncClient) -> None:
    await world.members.add("acme")
    for tenant, user in (("", uuid4()), (None, uuid4()), ("acme", None), ("acme", "somebody")):
        with pytest.raises(ConfigurationError, match="a tenant and a user"):
            async with tenant_context(tenant, user, of=world.app):  # type: ignore[arg-type]
                pass
    with pytest.raises(TenantNotFound):
        async with tenant_context("nobody", uuid4(), of=world.app):
            pass


async def test_an_application_that_does_not_run_has_no_session(world: World) -> None:
    with pytest.raises(ConfigurationError, match="does not run"):
        async with tenant_context("acme", uuid4(), of=world.app):
            pass
