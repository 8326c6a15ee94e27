"""Whose calls reach a database, and what becomes of tenants that are suspended, moved or gone."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools
from tests.integration.tenant_api.calls import MODES, Services, as_, create, problem
from tests.support.members import Members


@pytest.mark.parametrize(
    ("headers", "status", "code", "challenge"),
    [
        ({}, 401, "unauthenticated", "Bearer"),
        ({"caller": "bad"}, 401, "invalid_token", 'Bearer error="invalid_token"'),
        ({"caller": f"platform {uuid4()}"}, 403, "wrong_token_kind", None),
        ({"caller": f"{uuid4()} {uuid4()}"}, 404, "tenant_not_found", None),
        ({"x-tenant-id": str(uuid4())}, 401, "unauthenticated", "Bearer"),
    ],
)
async def test_who_has_no_tenant_gets_no_connection(
    members: Members,
    pools: RequestPools,
    client: httpx.AsyncClient,
    headers: dict[str, str],
    status: int,
    code: str,
    challenge: str | None,
) -> None:
    # attacks 41, 42
    await members.add("acme")
    for answer in (
        await client.get("/api/v1/projects", headers=headers),
        await client.get("/api/v1/projects", headers={**headers, "accept": "application/x-ndjson"}),
        await client.get(f"/api/v1/projects/{uuid4()}", headers=headers),
        await client.post("/api/v1/rpc/create_project", json={"name": "x"}, headers=headers),
    ):
        problem(answer, status, code)
        assert answer.headers.get("www-authenticate") == challenge
    assert pools.open_connections(members.cluster.id) == 0


async def test_a_tenant_named_elsewhere_than_in_the_token_is_not_looked_at(
    members: Members, client: httpx.AsyncClient
) -> None:
    # attack 42
    acme, other = await members.add("acme"), await members.add("other")
    await create(client, other, "theirs")
    headers = {**as_(acme), "x-tenant-id": str(other.id), "host": "other.example.com"}
    assert (await client.get("/api/v1/projects", headers=headers)).json() == []


@pytest.mark.parametrize("mode", MODES)
async def test_suspending_and_resuming_take_effect_on_the_next_request(
    members: Members, client: httpx.AsyncClient, mode: str
) -> None:
    # attack 44: the placement stays cached all the time
    member = await members.add("acme", mode)
    await create(client, member, "ours")
    await members.set_state(member, "suspended")
    problem(await client.get("/api/v1/projects", headers=as_(member)), 403, "tenant_suspended")
    problem(
        await client.post("/api/v1/rpc/create_project", json={"name": "x"}, headers=as_(member)),
        403,
        "tenant_suspended",
    )
    await members.set_state(member, "active")
    assert len((await client.get("/api/v1/projects", headers=as_(member))).json()) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_a_dropped_tenant_is_a_404_although_its_placement_is_cached(
    members: Members, client: httpx.AsyncClient, mode: str
) -> None:
    member = await members.add("acme", mode)
    await create(client, member, "ours")
    await members.record(member, status="deleting")
    await members.set_state(member, "deleting")
    await members.drop(member)
    for _ in range(2):
        problem(await client.get("/api/v1/projects", headers=as_(member)), 404, "tenant_not_found")


async def test_a_schema_dropped_behind_our_back_is_a_404(members: Members, client: httpx.AsyncClient) -> None:
    # the statement is parsed, and fails, before its gate can say that the tenant is gone
    member = await members.add("acme", "schema")
    await create(client, member, "ours")
    await members.record(member, status="deleted")
    await members.set_state(member, "suspended")
    async with members.databases.admin(members.cluster, member.home.database) as admin:
        await admin.execute("SELECT tenancy.drop_tenant_schema($1)", member.slug)
    problem(await client.get("/api/v1/projects", headers=as_(member)), 404, "tenant_not_found")


async def test_a_moving_tenant_is_a_503_with_retry_after(members: Members, client: httpx.AsyncClient) -> None:
    member = await members.add("acme")
    await members.set_state(member, "moving")
    answer = await client.get("/api/v1/projects", headers=as_(member))
    problem(answer, 503, "tenant_moving")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("mode", MODES)
async def test_an_old_epoch_is_resolved_again_unseen(members: Members, client: httpx.AsyncClient, mode: str) -> None:
    # attack 38
    member = await members.add("acme", mode)
    await create(client, member, "ours")
    await members.set_state(member, "active", epoch=2)
    await members.record(member, epoch=2)
    assert len((await client.get("/api/v1/projects", headers=as_(member))).json()) == 1
    await members.set_state(member, "active", epoch=3)  # the registry does not know yet
    problem(await client.get("/api/v1/projects", headers=as_(member)), 503, "tenant_moving")


async def test_known_tenants_are_served_while_the_registry_is_away(
    members: Members, services: Services, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown = await members.add("acme"), await members.add("other")
    await create(client, known, "ours")

    async def down(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(Placements, "_read_registry", down)
    services.placements._entries[known.id].recheck_at = 0.0
    assert (await client.get("/api/v1/projects", headers=as_(known))).status_code == 200
    answer = await client.get("/api/v1/projects", headers=as_(unknown))
    problem(answer, 503, "registry_unavailable")
    assert answer.headers["retry-after"]
