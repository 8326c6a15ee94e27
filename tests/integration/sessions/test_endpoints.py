"""An application on `control_plane.tenancy`: whose rows its endpoints see, and what becomes of their errors."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import BackgroundTasks
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_platform_token
from control_plane.tenancy import TenantSession
from tests.integration.sessions.application import ADD, MODES, NAMES, World, code
from tests.support.members import Member, Members


@pytest.mark.parametrize("mode", MODES)
async def test_each_tenant_reads_and_writes_its_own_tables(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme, other = await world.members.add("acme", mode), await world.members.add("other", mode)
    for member in (acme, other):
        added = await client.post("/names", params={"name": member.slug}, headers=world.token(member))
        assert added.status_code == 200, added.text
    for member in (acme, other):
        assert (await client.get("/names", headers=world.token(member))).json() == [member.slug]
        assert (await client.get("/whoami", headers=world.token(member))).json() == str(member.id)
        rows = (await client.get("/projects", headers=world.token(member))).json()
        assert [row["tenant_id"] for row in rows] == [str(member.id)]


@pytest.mark.parametrize("mode", MODES)
async def test_interleaved_requests_of_two_tenants_never_mix(
    world: World, client: httpx.AsyncClient, mode: str
) -> None:
    tenants = [await world.members.add("acme", mode), await world.members.add("other", mode)]
    for member in tenants:
        await client.post("/names", params={"name": member.slug}, headers=world.token(member))

    async def ask(member: Member) -> None:
        answer = await client.get("/names", headers=world.token(member))
        assert (answer.status_code, answer.json()) == (200, [member.slug])

    await asyncio.gather(*(ask(member) for _ in range(100) for member in tenants))


@pytest.mark.parametrize("mode", MODES)
async def test_the_tenant_outlives_commits_and_rollbacks_of_the_endpoint(
    world: World, client: httpx.AsyncClient, mode: str
) -> None:
    acme, other = await world.members.add("acme", mode), await world.members.add("other", mode)
    await client.post("/names", params={"name": "theirs"}, headers=world.token(other))
    answer = await client.post("/commit-between", params={"name": "mine"}, headers=world.token(acme))
    assert answer.json() == ["mine"]


async def test_an_exception_rolls_back(world: World, client: httpx.AsyncClient) -> None:
    headers = world.token(await world.members.add("acme"))
    assert code(await client.post("/refuse", params={"name": "no"}, headers=headers)) == (409, "conflict")
    assert (await client.get("/names", headers=headers)).json() == []


async def test_a_commit_that_fails_is_no_success(world: World, client: httpx.AsyncClient) -> None:
    headers = world.token(await world.members.add("acme", "schema"))

    @world.app.post("/lost")
    async def lost(session: TenantSession) -> str:
        await session.execute(ADD, {"name": "lost"})
        await terminate(world.members, "control-plane library")
        return "fine"

    answer = await client.post("/lost", headers=headers)
    assert code(answer) == (503, "unavailable")
    assert answer.headers["retry-after"]
    assert (await client.get("/names", headers=headers)).json() == []


async def terminate(members: Members, application_name: str) -> None:
    async with members.databases.admin(members.cluster) as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", application_name
        )


async def test_the_database_s_refusals_are_problems(world: World, client: httpx.AsyncClient) -> None:
    headers = world.token(await world.members.add("acme"))
    assert code(await client.post("/names", params={"name": ""}, headers=headers)) == (422, "unprocessable")


async def test_who_may_call(world: World, client: httpx.AsyncClient) -> None:
    assert (await client.get("/public")).json() == "open"
    assert code(await client.get("/names")) == (401, "unauthenticated")
    assert code(await client.get("/names", headers={"Authorization": "Bearer no"})) == (401, "invalid_token")
    platform = mint_platform_token(development_issuer(world.settings), "tests", ["*"])
    assert code(await client.get("/names", headers={"Authorization": f"Bearer {platform}"})) == (
        403,
        "wrong_token_kind",
    )


async def test_a_session_is_of_no_use_after_its_endpoint(world: World, client: httpx.AsyncClient) -> None:
    raised: list[BaseException] = []

    async def afterwards(session: AsyncSession) -> None:
        try:
            await session.execute(NAMES)
        except InvalidRequestError as error:
            raised.append(error)

    @world.app.post("/later")
    async def later(session: TenantSession, background: BackgroundTasks) -> None:
        await session.execute(NAMES)
        background.add_task(afterwards, session)

    await client.post("/later", headers=world.token(await world.members.add("acme")))
    assert len(raised) == 1
