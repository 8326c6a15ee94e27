"""Steps that are interrupted, by the death of their runner too, and runners that meet at the same home."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from control_plane.migrator import Policy, lane
from control_plane.migrator.policy import WavePolicy
from control_plane.settings import Settings
from control_plane.templates import Template, Templates
from tests.integration.migrator.runs import INVALID, MIGRATORS, run, until
from tests.support.fleet import Fleet
from tests.support.program import settings_environment
from tests.support.stepped import ROWS, TOUCHES, add, debts, things, with_stepped_template

AT_ONCE = Policy(waves=WavePolicy(canaries=0, shares=(), largest=0))
BUILDING = f"{MIGRATORS} AND state = 'active' AND query LIKE '%CREATE UNIQUE INDEX%'"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_stepped_template(settings, tmp_path / "stepped")


@pytest.fixture
def template(settings: Settings) -> Template:
    return Templates.load(settings.templates)["sample"]


@asynccontextmanager
async def snapshot(fleet: Fleet) -> AsyncIterator[None]:
    """A transaction that was there before: every build waits for it."""
    async with fleet.admin() as connection, connection.transaction(isolation="repeatable_read"):
        await connection.execute("SELECT FROM tenancy.homes")
        yield


async def spawn(fleet: Fleet, **variables: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "control_plane", "migrate-all", "--json", "--template", "sample",
        env=settings_environment(fleet.databases.settings) | variables,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def gone(connection: asyncpg.Connection) -> None:
    """The server has noticed that nobody is there any more."""
    await until(connection, f"SELECT NOT EXISTS ({MIGRATORS})")


async def test_a_backfill_whose_runner_is_killed_is_gone_on_with_and_done_once(fleet: Fleet) -> None:
    home = await add(fleet, "acme")
    process = await spawn(fleet, CP_BACKFILL_SHARE="0.0001")  # which is one batch, and a long sleep
    async with fleet.admin() as watch:
        await until(watch, "SELECT EXISTS (SELECT FROM tenancy.open_steps WHERE rows > 0)")
        process.kill()
        said, _ = await process.communicate()
        await gone(watch)
    steps = [event for event in map(json.loads, said.splitlines()) if event["event"] == "step"]
    assert steps[0] == {
        "event": "step", "cluster": "main", "tenant": "acme", "home": str(home.id), "version": 2,
        "step": "concurrent", "statement": 1, "statements": 1, "rows": 0,
    }  # fmt: skip
    assert await debts(fleet, home) == [(2, "backfill", 0, 10)]
    assert Counter(await things(fleet, home, "touched")) == {0: ROWS - 10, 1: 10}
    result, outcomes = await run(fleet)
    assert (result.status, result.done) == ("done", 1)
    assert outcomes["acme"].touched is not None
    assert outcomes["acme"].touched.rows == TOUCHES * ROWS - 10
    assert await things(fleet, home, "touched") == [TOUCHES] * ROWS


async def test_a_build_whose_runner_is_killed_goes_on_and_is_waited_for(fleet: Fleet) -> None:
    home = await add(fleet, "acme")
    async with fleet.admin() as watch, AsyncExitStack() as stack:
        await stack.enter_async_context(snapshot(fleet))
        process = await spawn(fleet)
        await until(watch, f"SELECT EXISTS ({BUILDING})")
        built = await watch.fetchval("SELECT indexrelid FROM pg_index WHERE NOT indisvalid")
        process.kill()
        await process.communicate()
        running = asyncio.create_task(run(fleet, 2))
        await until(watch, f"SELECT count(*) > 1 FROM ({MIGRATORS}) AS m")
        await stack.aclose()
        result, outcomes = await running
        assert (result.status, outcomes["acme"].attempts) == ("done", 1)
        assert await watch.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = $1", built)
    assert await debts(fleet, home) == []


async def test_an_invalid_index_of_a_lost_session_is_built_anew(fleet: Fleet) -> None:
    await add(fleet, "acme")
    async with fleet.admin() as watch:
        async with snapshot(fleet):
            running = asyncio.create_task(run(fleet))
            await until(watch, f"SELECT EXISTS ({BUILDING})")
            left = await watch.fetchval("SELECT indexrelid FROM pg_index WHERE NOT indisvalid")
            assert left is not None
            await watch.fetch(f"SELECT pg_terminate_backend(pid) FROM ({BUILDING}) AS b")
            await until(watch, "SELECT NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = $1)", left)
        result, outcomes = await running
        assert (result.status, outcomes["acme"].attempts) == ("done", 2)
        assert await watch.fetch(INVALID) == []


async def test_two_builds_at_a_time_while_other_homes_go_on(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "_HELD", 60.0)  # nobody asks the database in vain
    homes = [await add(fleet, f"acme-{number}", rows=1) for number in range(5)]
    async with fleet.admin() as watch:
        async with snapshot(fleet):
            running = asyncio.create_task(run(fleet, policy=AT_ONCE, concurrency=4))
            await until(watch, "SELECT count(*) = 5 FROM tenancy.homes WHERE version = 2")
            await until(watch, f"SELECT count(*) = 2 FROM ({BUILDING}) AS b")
            await asyncio.sleep(0.1)  # for a third one that does not come
            assert await watch.fetchval(f"SELECT count(*) FROM ({BUILDING}) AS b") == 2
        result, outcomes = await running
    assert (result.status, result.done) == ("done", 5)
    assert {outcome.attempts for outcome in outcomes.values()} == {1}
    assert [await fleet.version(home) for home in homes] == [4] * 5


async def test_builds_of_other_runners_count(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "_HELD", 0.01)
    home = await add(fleet, "acme")
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(fleet.admin()) for _ in range(2)]
        for other in others:
            await other.execute("SELECT tenancy.hold_build()")
        running = asyncio.create_task(run(fleet))
        async with fleet.admin() as watch:
            with pytest.raises(asyncpg.PostgresError, match="two indexes are being built"):
                await watch.execute("SELECT tenancy.hold_build()")
            await until(watch, "SELECT EXISTS (SELECT FROM tenancy.open_steps)")
            await asyncio.sleep(0.3)  # longer than all attempts
            assert await debts(fleet, home) == [(2, "backfill", 0, 0), (2, "concurrent", 0, 0)]
        await others[0].close()
        result, outcomes = await running
    assert (result.status, outcomes["acme"].attempts) == ("done", 1)


async def test_a_home_whose_steps_another_runner_works_off_is_waited_for(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "_HELD", 0.01)
    monkeypatch.setattr(lane, "patience", lambda _: 0.0)
    home = await add(fleet, "acme")
    async with fleet.admin() as watch, fleet.admin() as other:
        async with snapshot(fleet):
            running = asyncio.create_task(run(fleet))
            await until(watch, f"SELECT EXISTS ({BUILDING})")
            running.cancel()
            await asyncio.wait([running])
        await gone(watch)
        await other.execute("SELECT tenancy.hold_home($1)", home.id)
        running = asyncio.create_task(run(fleet))
        await until(watch, f"SELECT EXISTS ({MIGRATORS})")
        await asyncio.sleep(0.3)  # longer than all attempts
        assert not running.done()
        await other.execute("SELECT pg_advisory_unlock_all()")
        result, outcomes = await running
    assert (result.status, outcomes["acme"].attempts) == ("done", 1)
    assert await things(fleet, home, "touched") == [TOUCHES] * ROWS


# A sequence counts on when what it is asked in is undone: each batch is refused once.
_REFUSE = """
CREATE SEQUENCE "{schema}".tries;
CREATE FUNCTION "{schema}".fn_refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF nextval('"{schema}".tries') % 2 = 1 THEN
        RAISE EXCEPTION 'busy' USING ERRCODE = 'lock_not_available';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER refuse AFTER UPDATE ON "{schema}".tb_thing EXECUTE FUNCTION "{schema}".fn_refuse();
"""


async def test_a_batch_that_finds_the_home_busy_is_tried_again_as_often_as_others_succeed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "patience", lambda _: 0.0)
    home = await add(fleet, "acme")
    async with fleet.admin() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        await connection.execute(_REFUSE.format(schema=home.schema_name))
    result, outcomes = await run(fleet, 2)
    assert (result.status, result.done) == ("done", 1)
    assert outcomes["acme"].attempts == 1 + 7, "each batch once, and those two that change nothing"
    assert await things(fleet, home, "touched") == [TOUCHES] * ROWS
