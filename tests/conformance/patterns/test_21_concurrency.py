"""Pattern 21 under concurrency: one computes for all, a hit waits for nobody, and no change is ever missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.posts import opened, until_blocked, write_post
from tests.conformance.patterns.queries import (
    Answer,
    ask,
    catalogue,
    computations,
    counting_world,
    expire,
    status,
    stored_answers,
)
from tests.conformance.patterns.undone import undone
from tests.conformance.test_mutations import replace_in_function
from tests.conformance.world import Member, World

AT_ONCE = 6
ROUNDS = 5


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def counting(ground: Ground, mode: str) -> World:
    """Two tenants with the query `counted`, Ada in each of them; the tests of this module commit into it."""
    return await counting_world(ground, mode)


@pytest_asyncio.fixture
async def patient(counting: World) -> AsyncIterator[World]:
    """The same, where who waits for somebody else's answer waits until it is there: a test must not race a clock."""
    cached_query = "tenancy.cached_query(regclass,regclass,text,jsonb,boolean)"
    usual, long = "interval '500 milliseconds'", "interval '1 minute'"
    await replace_in_function(counting, cached_query, usual, long)
    yield counting
    await replace_in_function(counting, cached_query, long, usual)


@asynccontextmanager
async def held_up(world: World, member: Member) -> AsyncIterator[asyncpg.Connection]:
    """As long as this lasts, who computes with mode `wait` does not end."""
    async with world.admin(member) as gate:
        await gate.execute("SELECT pg_advisory_lock(2121)")
        try:
            yield gate
        finally:
            await gate.execute("SELECT pg_advisory_unlock_all()")


async def waiting(watcher: asyncpg.Connection, connections: list[asyncpg.Connection]) -> set[int]:
    """Which of the sessions wait at this moment, for the gate or in the loop of a miss."""
    rows = await watcher.fetch(
        """
        SELECT pid FROM pg_stat_activity
        WHERE pid = ANY ($1) AND (wait_event = 'PgSleep' OR (wait_event_type, wait_event) = ('Lock', 'advisory'))
        """,
        [connection.get_server_pid() for connection in connections],
    )
    return {row["pid"] for row in rows}


async def ask_and_commit(connection: asyncpg.Connection, member: Member, **given: object) -> Answer:
    answer = await ask(connection, member, **given)
    await connection.execute("COMMIT")
    return answer


async def misses_at_once(world: World, member: Member, nonce: int) -> list[Answer]:
    """What AT_ONCE requests get that ask the same at the same time, when nothing is stored."""
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(opened(world, member)) for _ in range(AT_ONCE)]
        watcher = await stack.enter_async_context(world.admin(member))
        async with held_up(world, member):
            asked = [
                asyncio.create_task(ask_and_commit(connection, member, mode="wait", count=nonce))
                for connection in connections
            ]
            seen: set[int] = set()
            async with asyncio.timeout(20):
                while len(seen) < AT_ONCE and not any(task.done() for task in asked):
                    seen |= await waiting(watcher, connections)
        return await asyncio.gather(*asked)


async def test_misses_at_once_are_computed_once(patient: World) -> None:
    """Requirement 4: single flight, repeated; the others get the same answer as a hit."""
    world, member = patient, patient.a
    for nonce in range(ROUNDS):
        before = await computations(world, member)
        answers = await misses_at_once(world, member, nonce)
        assert await computations(world, member) == before + 1
        assert sorted(answer["cache"]["status"] for answer in answers) == ["hit"] * (AT_ONCE - 1) + ["miss"]
        assert len({str(answer["result"]) for answer in answers}) == 1


async def test_the_flights_of_tenants_and_of_parameters_are_their_own(counting: World) -> None:
    """Requirement 4: nobody waits for an answer that is not his."""
    world = counting
    async with (
        opened(world, world.a) as first,
        opened(world, world.a) as second,
        opened(world, world.b) as third,
        world.admin(world.a) as watcher,
    ):
        async with held_up(world, world.a):
            blocked = asyncio.create_task(ask_and_commit(first, world.a, mode="wait", count=100))
            await until_blocked(watcher, first)
            assert await status(second, world.a, count=100) == "miss"
            assert await status(third, world.b, count=100) == "miss"
        assert (await blocked)["cache"]["status"] == "miss"


async def test_who_waits_too_long_computes_for_himself(counting: World) -> None:
    """Requirement 4: a flight that never ends holds nobody up, and only its own answer is stored."""
    world, member = counting, counting.a
    async with opened(world, member) as slow, undone(world, member) as other:
        assert await status(slow, member, count=200) == "miss"  # stored, and not committed
        before = await computations(world, member)
        for _ in range(2):
            assert await status(other, member, count=200) == "miss"
        assert await computations(world, member) == before + 2
        await slow.execute("COMMIT")
        assert await status(other, member, count=200) == "hit"


async def test_an_elected_one_that_fails_leaves_the_flight_to_others(patient: World) -> None:
    """Requirement 4: nothing is stored, and the next one computes."""
    world, member = patient, patient.a
    async with opened(world, member) as failing, opened(world, member) as next_one, world.admin(member) as watcher:
        async with held_up(world, member):
            doomed = asyncio.create_task(ask(failing, member, mode="wait", count=300))
            await until_blocked(watcher, failing)
            following = asyncio.create_task(ask_and_commit(next_one, member, mode="wait", count=300))
            async with asyncio.timeout(20):
                while not await waiting(watcher, [next_one]) and not following.done():
                    pass
            await watcher.execute("SELECT pg_cancel_backend($1)", failing.get_server_pid())
            [failure] = await asyncio.gather(doomed, return_exceptions=True)
            assert isinstance(failure, asyncpg.QueryCanceledError)
            await failing.execute("ROLLBACK")
        assert (await following)["cache"]["status"] == "miss"
    async with undone(world, member) as connection:
        assert await status(connection, member, mode="wait", count=300) == "hit"


async def test_what_has_only_expired_is_served_while_somebody_computes_it(counting: World) -> None:
    """Requirement 4: marked stale, with its age, at once; but never what a change has overtaken."""
    world, member = counting, counting.a
    async with world.within(member) as connection:
        assert await status(connection, member, mode="wait", count=400) == "miss"
    await expire(world, member, "1 minute")
    async with (
        opened(world, member) as refreshing,
        undone(world, member) as reading,
        world.admin(member) as watcher,
        held_up(world, member),
    ):
        refreshed = asyncio.create_task(ask_and_commit(refreshing, member, mode="wait", count=400))
        await until_blocked(watcher, refreshing)
        answer = await ask(reading, member, mode="wait", count=400)
        assert answer["cache"]["status"] == "stale"
        assert answer["cache"]["age"] >= 360
        async with world.within(member) as connection:
            await write_post(connection, member)
        changed = asyncio.create_task(status(reading, member, mode="wait", count=400))
        await until_blocked(watcher, reading)  # it computes for itself
        await watcher.execute("SELECT pg_cancel_backend($1)", reading.get_server_pid())
        [failure] = await asyncio.gather(changed, return_exceptions=True)
        assert isinstance(failure, asyncpg.QueryCanceledError)
        await watcher.execute("SELECT pg_cancel_backend($1)", refreshing.get_server_pid())
        await asyncio.gather(refreshed, return_exceptions=True)
        await refreshing.execute("ROLLBACK")


async def test_what_has_expired_long_ago_is_not_served(counting: World) -> None:
    """Requirement 4: stale is at most another ttl."""
    world, member = counting, counting.a
    async with world.within(member) as connection:
        assert await status(connection, member, count=500) == "miss"
    await expire(world, member, "301 s")
    async with opened(world, member) as slow, undone(world, member) as other:
        assert await status(slow, member, count=500) == "miss"
        assert await status(other, member, count=500) == "miss"
        await slow.execute("ROLLBACK")


async def test_hits_wait_for_nobody(counting: World) -> None:
    """Requirement 3, check 21.4: eight at once, while one transaction has just had a hit, one is about to change a
    source, and one stores the same answer anew."""
    world, member = counting, counting.a
    async with world.within(member) as connection:
        assert await status(connection, member, count=600) == "miss"
    async with AsyncExitStack() as stack:
        reader, writer, other = [await stack.enter_async_context(opened(world, member)) for _ in range(3)]
        assert await status(reader, member, count=600) == "hit"
        await write_post(writer, member)
        await other.execute("SELECT pg_advisory_xact_lock_shared(1)")
        connections = [await stack.enter_async_context(opened(world, member)) for _ in range(8)]
        for connection in connections:
            await connection.execute("SET LOCAL lock_timeout = '1ms'; SET TRANSACTION READ ONLY")
        found = await asyncio.gather(*(status(connection, member, count=600) for connection in connections))
        assert found == ["hit"] * 8
        await writer.execute("ROLLBACK")


async def test_a_change_that_is_committed_after_the_answer_was_computed(counting: World) -> None:
    """Requirement 1: T1 has changed a source, T2 computes without seeing it and stores, T1 commits: no hit."""
    world, member = counting, counting.a
    for nonce in range(ROUNDS):
        async with opened(world, member) as changing:
            await write_post(changing, member)
            async with world.within(member) as connection:
                await connection.execute("SELECT pg_current_xact_id()")  # began later and is over: numbers tell nothing
            async with world.within(member) as connection:
                before = await ask(connection, member, count=700 + nonce)
                assert before["cache"]["status"] == "miss"
            async with world.within(member) as connection:
                assert await status(connection, member, count=700 + nonce) == "hit"
            await changing.execute("COMMIT")
        async with world.within(member) as connection:
            after = await ask(connection, member, count=700 + nonce)
            assert (after["result"], after["cache"]["status"]) == (before["result"] + 1, "miss")


async def test_a_change_that_is_committed_while_the_answer_is_being_computed(counting: World) -> None:
    """Requirement 1: the snapshot is older than what was computed, so the worst is a miss too many."""
    world, member = counting, counting.a
    async with opened(world, member) as computing, world.admin(member) as watcher:
        async with held_up(world, member):
            asked = asyncio.create_task(ask_and_commit(computing, member, mode="wait", count=800))
            await until_blocked(watcher, computing)
            async with world.within(member) as connection:
                await write_post(connection, member)
        overtaken = await asked
    async with world.within(member) as connection:
        answer = await ask(connection, member, count=800, mode="wait")
        assert answer["cache"]["status"] == "miss"
        assert answer["result"] == overtaken["result"] + 1


async def test_a_change_by_whoever_stored_the_answer(counting: World) -> None:
    """Requirement 1: his transaction is not in progress in his own snapshot, once others have begun and ended later."""
    world, member = counting, counting.a
    async with opened(world, member) as connection:
        await connection.execute("SELECT pg_current_xact_id()")
        for _ in range(2):
            async with world.within(member) as other:
                await other.execute("SELECT pg_current_xact_id()")
        before = await ask(connection, member, count=900)
        assert before["cache"]["status"] == "miss"
        assert await status(connection, member, count=900) == "hit"
        await write_post(connection, member)
        assert await status(connection, member, count=900) == "miss"
        await connection.execute("COMMIT")
    async with world.within(member) as connection:
        after = await ask(connection, member, count=900)
        assert (after["result"], after["cache"]["status"]) == (before["result"] + 1, "miss")


async def test_an_undone_change_costs_nothing(counting: World) -> None:
    """Requirement 1: what was rolled back has changed nothing."""
    world, member = counting, counting.a
    async with world.within(member) as connection:
        assert await status(connection, member, count=1000) == "miss"
    async with opened(world, member) as connection:
        await write_post(connection, member)
        await connection.execute("ROLLBACK")
    async with world.within(member) as connection:
        assert await status(connection, member, count=1000) == "hit"


async def test_writers_and_readers_at_once_agree(counting: World) -> None:
    """Requirements 1 and 4: whatever a reader is given holds all that was committed before he asked."""
    world, member = counting, counting.a
    await catalogue(world, member, ttl=60)
    written = 0

    async def write(rounds: int) -> None:
        nonlocal written
        async with world.request(member) as connection:
            for _ in range(rounds):
                async with connection.transaction():
                    await connection.execute("SELECT tenancy.set_tenant_context($1, $2)", member.id, member.user_id)
                    await write_post(connection, member)
                written += 1

    async def read(rounds: int) -> int:
        hits = 0
        async with world.request(member) as connection:
            for _ in range(rounds):
                least = start + written
                async with connection.transaction():
                    await connection.execute("SELECT tenancy.set_tenant_context($1, $2)", member.id, member.user_id)
                    answer = await ask(connection, member, count=1100)
                assert answer["result"] >= least, answer
                hits += answer["cache"]["status"] == "hit"
        return hits

    async with world.within(member) as connection:
        start = (await ask(connection, member, count=1100))["result"]
    await asyncio.gather(write(15), write(15), *(read(20) for _ in range(4)))
    async with world.within(member) as connection:
        assert (await ask(connection, member, count=1100))["result"] == start + 30
    assert len(await stored_answers(world, member)) > 0
