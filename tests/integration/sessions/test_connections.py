"""Sessions borrow connections: what they leave behind, and that each loan comes to an end."""

from __future__ import annotations

import asyncio
import gc

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools
from control_plane.pools.sessions import TenantSessions
from control_plane.settings import Settings
from control_plane.tenancy import TenantSession
from tests.integration.sessions.application import NAMES, World, code, engine_of
from tests.support.members import Members

LEFT_BEHIND = {
    "SET search_path = pg_catalog": "SHOW search_path",
    "SET TimeZone = 'Asia/Tokyo'": "SHOW TimeZone",
    "SELECT set_config('app.anything', 'left', false)": "SELECT coalesce(current_setting('app.anything', true), '')",
    "PREPARE left_behind AS SELECT 1": "SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_behind'",
    "SELECT pg_advisory_lock(42)": "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42",
    "DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1": "SELECT count(*) FROM pg_cursors WHERE name = 'left_behind'",
    "LISTEN left_behind": "SELECT count(*) FROM pg_listening_channels()",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": "SHOW default_transaction_read_only",
}


@pytest.mark.parametrize("left", LEFT_BEHIND)
async def test_nothing_of_a_session_reaches_the_next_request(members: Members, settings: Settings, left: str) -> None:
    world = World(members, settings.model_copy(update={"shared_pool_size": 1}))
    acme, other = await members.add("acme"), await members.add("other")
    look = LEFT_BEHIND[left]

    @world.app.post("/leave")
    async def leave(session: TenantSession) -> int:
        await session.execute(text(left))
        return await backend(session)

    @world.app.get("/look")
    async def looked(session: TenantSession) -> tuple[int, str]:
        return await backend(session), str(await session.scalar(text(look)))

    async with world.running() as client:
        before = (await client.get("/look", headers=world.token(other))).json()
        pid = (await client.post("/leave", headers=world.token(acme))).json()
        after = (await client.get("/look", headers=world.token(other))).json()
    assert pid == before[0] == after[0]  # it was the same connection
    assert after[1] == before[1]


async def backend(session: AsyncSession) -> int:
    pid: int = await session.scalar(text("SELECT pg_backend_pid()"))
    return pid


async def test_past_the_budget_the_answer_is_503_with_retry_after(members: Members, settings: Settings) -> None:
    tight = {"cluster_connections": 2, "dedicated_pool_size": 2, "acquire_timeout": 0.05}
    world = World(members, settings.model_copy(update=tight))
    acme = await members.add("acme", "schema")
    held, release = asyncio.Semaphore(0), asyncio.Event()

    @world.app.get("/hold")
    async def hold(session: TenantSession) -> None:
        await session.execute(text("SELECT 1"))
        held.release()
        await release.wait()

    async with world.running() as client:
        holding = [asyncio.create_task(client.get("/hold", headers=world.token(acme))) for _ in range(2)]
        for _ in holding:
            await held.acquire()
        answer = await client.get("/names", headers=world.token(acme))
        assert code(answer) == (503, "pool_exhausted")
        assert answer.headers["retry-after"] == "1"
        release.set()
        assert [(await each).status_code for each in holding] == [200, 200]
        assert (await client.get("/names", headers=world.token(acme))).status_code == 200


async def test_a_session_between_transactions_holds_no_connection(members: Members, settings: Settings) -> None:
    world = World(members, settings.model_copy(update={"shared_pool_size": 1, "acquire_timeout": 5.0}))
    acme = await members.add("acme")
    async with world.running(), world.sessions.open(acme.caller) as first, world.sessions.open(acme.caller) as second:
        for session in (first, second, first):
            await session.execute(NAMES)
            await session.commit()


async def test_the_statements_of_a_session_may_alternate(members: Members, settings: Settings) -> None:
    """A statement that is used again is the same one, whatever has been prepared since."""
    world = World(members, settings)
    acme = await members.add("acme")
    one, two = text("SELECT 1 AS one, :n"), text("SELECT 'two' AS two, :n")
    async with world.running(), world.sessions.open(acme.caller) as session:
        for number in range(3):
            assert (await session.execute(one, {"n": str(number)})).all() == [(1, str(number))]
            assert (await session.execute(two, {"n": str(number)})).all() == [("two", str(number))]


async def test_cancelled_sessions_give_their_connections_back(members: Members, settings: Settings) -> None:
    acme = await members.add("acme")
    small = settings.model_copy(update={"shared_pool_size": 2, "acquire_timeout": 30.0})
    pools = RequestPools(members.databases, small, full_reset=True)
    sessions = TenantSessions(pools, Placements(members.databases))

    async def work() -> None:
        async with sessions.open(acme.caller) as session:
            await session.execute(text("SELECT pg_sleep(0.02)"))

    tasks = [asyncio.create_task(work()) for _ in range(60)]
    for number, task in enumerate(tasks):
        await asyncio.sleep(0.003)
        if number % 2:
            task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    await asyncio.gather(*(work() for _ in range(4)))
    await sessions.aclose()
    await pools.aclose()
    assert pools.open_connections(members.cluster.id) == 0


async def test_a_loan_that_nobody_returns_is_not_lost_to_the_pool(members: Members, settings: Settings) -> None:
    acme = await members.add("acme")
    pools = RequestPools(members.databases, settings.model_copy(update={"shared_pool_size": 1}), full_reset=True)
    sessions = TenantSessions(pools, Placements(members.databases))
    attempts = iter([TimeoutError])

    @event.listens_for(engine_of(sessions).sync_engine, "connect")
    def fail_once(*_: object) -> None:
        for error in attempts:
            raise error

    with pytest.raises(TimeoutError):
        async with sessions.open(acme.caller) as session:
            await session.execute(NAMES)
    await sessions._lend(acme.caller)
    gc.collect()
    async with sessions.open(acme.caller) as session:
        assert list(await session.scalars(NAMES)) == []
    await pools.aclose()
