"""Tenants that are suspended, moved, migrated or deleted while an application serves them."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from control_plane.tenancy import TenantSession
from tests.integration.sessions.application import MODES, NAMES, World, code


@pytest.mark.parametrize("mode", MODES)
async def test_a_suspended_tenant_is_refused_at_once(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme = await world.members.add("acme", mode)
    headers = world.token(acme)
    assert (await client.get("/names", headers=headers)).status_code == 200
    await world.members.set_state(acme, "suspended")
    assert code(await client.get("/names", headers=headers)) == (403, "tenant_suspended")
    assert code(await client.post("/names", params={"name": "no"}, headers=headers)) == (403, "tenant_suspended")
    await world.members.set_state(acme, "active")
    assert (await client.get("/names", headers=headers)).json() == []


@pytest.mark.parametrize("mode", MODES)
async def test_an_outdated_placement_is_read_again(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme = await world.members.add("acme", mode)
    headers = world.token(acme)
    await client.post("/names", params={"name": "mine"}, headers=headers)
    await world.members.set_state(acme, "active", epoch=2)
    moving = await client.get("/names", headers=headers)  # until the registry says so too
    assert code(moving) == (503, "tenant_moving")
    assert moving.headers["retry-after"] == "1"
    await world.members.record(acme, epoch=2)
    assert (await client.get("/names", headers=headers)).json() == ["mine"]


async def test_the_isolation_level_survives_the_change_of_place(world: World, client: httpx.AsyncClient) -> None:
    acme = await world.members.add("acme", "schema")
    headers = world.token(acme)
    options = {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True}

    @world.app.get("/level")
    async def level(session: TenantSession) -> list[str]:
        await session.connection(execution_options=options)
        settings = ("transaction_isolation", "transaction_read_only", "app.current_tenant_id")
        return [await session.scalar(text(f"SHOW {name}")) for name in settings]

    for epoch in (1, 2):
        await world.members.set_state(acme, "active", epoch=epoch)
        await world.members.record(acme, epoch=epoch)
        answer = await client.get("/level", headers=headers)
        assert answer.json() == ["serializable", "on", str(acme.id)]


async def test_a_deleted_tenant_is_not_found(world: World, client: httpx.AsyncClient) -> None:
    acme = await world.members.add("acme", "shared")
    headers = world.token(acme)
    await client.get("/names", headers=headers)
    await world.members.record(acme, status="deleting")
    await world.members.drop(acme)
    for _ in range(2):
        assert code(await client.get("/names", headers=headers)) == (404, "tenant_not_found")


async def test_a_request_goes_on_after_a_migration(world: World, client: httpx.AsyncClient) -> None:
    acme = await world.members.add("acme", "schema", version=1)
    headers = world.token(acme)
    await client.post("/names", params={"name": "old"}, headers=headers)
    before = (await client.get("/projects", headers=headers)).json()
    script = world.members.template.script(1, 3)
    async with world.members.databases.admin(world.members.cluster) as admin:
        await admin.execute(script.message(acme.home.id, acme.home.schema_name, lock_timeout=2.0))
    after = await client.get("/projects", headers=headers)
    assert after.status_code == 200, after.text
    assert after.json() == [{**before[0], "description": ""}]


async def test_a_session_of_a_suspended_tenant_stays_refused(world: World, client: httpx.AsyncClient) -> None:
    acme = await world.members.add("acme", "schema")
    await world.members.set_state(acme, "suspended")
    async with world.sessions.open(acme.caller) as session:
        for _ in range(2):
            with pytest.raises(DBAPIError, match="suspended"):
                await session.execute(NAMES)
        await session.rollback()
        with pytest.raises(DBAPIError, match="suspended"):
            await session.execute(NAMES)
