"""What operators do with a run, and what happens when its runner is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text, update

from control_plane.errors import RunFinished, RunInProgress, RunNotFound
from control_plane.migrator import (
    Event,
    HomeResult,
    Options,
    Policy,
    RunResult,
    Started,
    Waiting,
    WaveBegun,
    migrate_all,
    operators,
)
from control_plane.migrator.policy import WavePolicy
from control_plane.pools.databases import Databases
from control_plane.registry import runs, template_versions
from control_plane.registry.models import Run
from tests.integration.migrator.runs import MIGRATORS, add_conflicting_column, until
from tests.support.fleet import Fleet

SMALL = Policy(waves=WavePolicy(canaries=1, shares=(), largest=0))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.migrator.lease.SECONDS", 0.02)


class Running:
    """A run in a task of its own, with what it has said so far."""

    def __init__(self, fleet: Fleet, **options: object) -> None:
        self.events: list[Event] = []
        chosen = Options(policy=SMALL, concurrency=1, **options)  # type: ignore[arg-type]
        self.task = asyncio.create_task(
            migrate_all(fleet.databases, fleet.template, chosen, listener=self.events.append)
        )

    async def said(self, kind: type[Event], count: int = 1) -> None:
        while sum(isinstance(event, kind) for event in self.events) < count:
            assert not self.task.done(), await self.task
            await asyncio.sleep(0.005)

    @property
    def homes(self) -> int:
        return sum(isinstance(event, HomeResult) for event in self.events)

    async def result(self) -> RunResult:
        return await self.task


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.01)


async def add(fleet: Fleet, count: int) -> None:
    for number in range(count):
        await fleet.add(f"acme-{number}")


async def test_a_run_that_asks_for_approval_waits_after_each_wave(fleet: Fleet) -> None:
    await add(fleet, 4)
    await fleet.add("common", "shared")
    running = Running(fleet, approve=True)
    for waits, homes in ((1, 1), (2, 4)):
        await running.said(Waiting, waits)
        await asyncio.sleep(0.1)  # nothing goes on by itself
        assert running.homes == homes
        async with fleet.admin() as connection:  # it may take until tomorrow
            await until(connection, f"SELECT NOT EXISTS ({MIGRATORS})")
        shown = await operators.show(fleet.databases, "last")
        assert (shown.status, shown.runner) == ("paused", True)
        record, options = await operators.go_on(fleet.databases, "last", actor="tests")
        assert (record.wish, options) == (None, None)
    result = await running.result()
    assert (result.status, result.done) == ("done", 5)
    assert (await operators.show(fleet.databases, "last")).status == "done"


async def test_the_next_wave_goes_on_with_the_sessions_of_the_one_before(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new session plans all of a migration anew, which takes longer than to migrate some homes."""
    await add(fleet, 4)
    await fleet.add("common", "shared")
    opened, admin = Counter[str](), Databases.admin

    def count(*arguments: Any, purpose: str = "admin") -> AbstractAsyncContextManager[asyncpg.Connection]:
        opened[purpose] += 1
        return admin(*arguments, purpose=purpose)

    monkeypatch.setattr(Databases, "admin", count)
    running = Running(fleet)
    assert (await running.result()).done == 5
    assert sum(isinstance(event, WaveBegun) for event in running.events) == 3
    assert opened["migrate"] == 1
    async with fleet.admin() as connection:
        await until(connection, f"SELECT NOT EXISTS ({MIGRATORS})")


async def test_a_paused_run_takes_no_further_home_until_it_may_go_on(fleet: Fleet) -> None:
    await add(fleet, 8)
    running = Running(fleet)
    await running.said(HomeResult, 2)
    await operators.pause(fleet.databases, "last", actor="tests")

    async def paused() -> bool:
        return (await operators.show(fleet.databases, "last")).status == "paused"

    await eventually(paused)
    await asyncio.sleep(0.3)  # what was in flight
    seen = running.homes
    await asyncio.sleep(0.2)
    assert running.homes == seen < 8
    await operators.go_on(fleet.databases, "last", actor="tests")
    assert (await running.result()).done == 8


async def test_an_aborted_run_ends_and_may_not_be_aborted_again(fleet: Fleet) -> None:
    await add(fleet, 8)
    running = Running(fleet)
    await running.said(HomeResult, 2)
    await operators.abort(fleet.databases, "last", actor="tests")
    result = await running.result()
    assert (result.status, result.reason) == ("aborted", "it was aborted")
    assert result.left > 0
    shown = await operators.show(fleet.databases, str(result.run_id)[:8])
    assert (shown.status, shown.runner, shown.wish) == ("aborted", False, None)
    with pytest.raises(RunFinished):
        await operators.abort(fleet.databases, "last", actor="tests")


async def test_a_run_whose_runner_died_is_taken_over_under_its_own_name(fleet: Fleet) -> None:
    await add(fleet, 8)
    running = Running(fleet)
    await running.said(HomeResult, 2)
    running.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running.task
    shown = await operators.show(fleet.databases, "last")
    assert (shown.status, shown.runner) == ("running", False)
    record, options = await operators.go_on(fleet.databases, "last", actor="tests")
    assert options is not None
    assert options.policy == SMALL
    result = await migrate_all(fleet.databases, fleet.template, options, run_id=record.id)
    assert (result.status, result.run_id) == ("done", shown.id)
    recorded = await operators.show(fleet.databases, "last")
    assert (recorded.status, recorded.planned, recorded.done) == ("done", 8, 8)


async def test_a_runner_that_has_been_silent_is_no_runner(fleet: Fleet) -> None:
    async with fleet.databases.registry.begin() as session:
        run = await runs.start_run(session, "reference", 3, 1, actor="tests", options={})
    async with fleet.databases.engine.connect() as pooled:
        holder = await pooled.execution_options(isolation_level="AUTOCOMMIT")
        await runs.hold_run(holder, run.id)
        for silent, status in ((False, "running"), (True, "halted")):
            async with fleet.databases.registry.begin() as session:
                if silent:
                    await session.execute(update(Run).values(heartbeat_at=text("now() - interval '16 seconds'")))
                await runs.close_abandoned(session)
            assert (await operators.show(fleet.databases, "last")).status == status
        await runs.let_go_run(holder, run.id)


async def test_several_runners_share_a_run(fleet: Fleet) -> None:
    await add(fleet, 10)
    first = Running(fleet)
    await first.said(Started)
    record, options = await operators.join(fleet.databases, "last", actor="tests")
    options.concurrency = 1
    second = await migrate_all(fleet.databases, fleet.template, options, run_id=record.id)
    result = await first.result()
    assert {result.status, second.status} == {"done"}
    recorded = await operators.show(fleet.databases, "last")
    assert (recorded.status, recorded.done, recorded.failed) == ("done", 10, 0)
    async with fleet.admin() as connection:
        assert await connection.fetchval("SELECT count(*) FROM tenancy.homes WHERE version = 3") == 10
    with pytest.raises(RunFinished):
        await operators.join(fleet.databases, "last", actor="tests")


async def test_a_run_is_explained_by_what_failed(fleet: Fleet) -> None:
    for slug in ("bad", "worse"):
        await add_conflicting_column(fleet, await fleet.add(slug))
    await add(fleet, 3)
    await migrate_all(fleet.databases, fleet.template, Options(policy=Policy(waves=WavePolicy(canaries=0))))
    found = await operators.explain(fleet.databases, "last")
    (group,) = found.failures
    assert (group.homes, group.sqlstate, sorted(str(slug) for slug in group.tenants)) == (2, "42701", ["bad", "worse"])
    assert (found.run.status, found.run.failed) == ("failed", 2)
    assert [record.id for record in await operators.history(fleet.databases)] == [found.run.id]


async def test_a_run_is_named_by_enough_of_its_id(fleet: Fleet) -> None:
    for ref in ("last", "abc", "00000000", "%%%%"):
        with pytest.raises(RunNotFound):
            await operators.show(fleet.databases, ref)


async def test_those_who_look_at_a_run_at_the_same_time_are_not_taken_for_its_runners(fleet: Fleet) -> None:
    async with fleet.databases.registry.begin() as session:
        run = await runs.start_run(session, "reference", 3, 1, actor="tests", options={}, durable=True)
    async with fleet.databases.registry() as one, fleet.databases.registry() as other:
        assert [await runs.has_runner(session, run.id) for session in (one, other)] == [False, False]
        assert await runs.is_deserted(other, run.id)


async def test_a_second_run_of_a_template_is_refused_before_it_does_anything(fleet: Fleet) -> None:
    await fleet.add("acme")
    async with fleet.databases.registry.begin() as session:
        open_run = await runs.start_run(session, "reference", 3, 1, actor="tests", options={}, durable=True)
        await runs.start_run(session, "other", 3, 1, actor="tests", options={}, durable=True)
    with pytest.raises(RunInProgress, match=str(open_run.id)):
        await migrate_all(fleet.databases, fleet.template, Options())
    async with fleet.databases.registry() as session:
        assert await template_versions.current(session, fleet.template) is None
    await operators.abort(fleet.databases, str(open_run.id), actor="tests")
    assert (await migrate_all(fleet.databases, fleet.template, Options())).done == 1
