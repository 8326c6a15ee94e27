"""Who follows a run by the numbers of its outcomes misses none."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from control_plane.errors import RunNotFound
from control_plane.migrator import operators
from control_plane.registry import runs
from tests.support.fleet import Fleet


def outcome(tenant: str, status: str = "failed", home_id: UUID | None = None) -> dict[str, Any]:
    return {
        "home_id": home_id or uuid4(),
        "cluster": "main",
        "tenant": tenant,
        "from_version": 1,
        "to_version": 3,
        "status": status,
        "sqlstate": None,
        "error": None,
        "milliseconds": 1,
        "rows_touched": None,
    }


async def begin(fleet: Fleet) -> UUID:
    async with fleet.databases.registry.begin() as session:
        return (await runs.start_run(session, "reference", 3, 0, actor="tests", options={}, durable=True)).id


async def test_failures_are_told_once_each_and_again_when_they_happen_again(fleet: Fleet) -> None:
    run, home = await begin(fleet), uuid4()
    for recorded in (outcome("one", home_id=home), outcome("two", "done"), outcome("three")):
        async with fleet.databases.registry.begin() as session:
            await runs.record_homes(session, run, [recorded])
    seen = await operators.progress(fleet.databases, run, 0)
    assert [failure.tenant for failure in seen.failures] == ["one", "three"]
    assert (seen.run.done, seen.run.failed) == (1, 2)
    last = seen.failures[-1].number
    assert list((await operators.progress(fleet.databases, run, last)).failures) == []
    async with fleet.databases.registry.begin() as session:
        await runs.record_homes(session, run, [outcome("one", home_id=home)])
    seen = await operators.progress(fleet.databases, run, last)
    assert [failure.tenant for failure in seen.failures] == ["one"]
    assert (seen.run.done, seen.run.failed) == (1, 2)
    async with fleet.databases.registry.begin() as session:
        await runs.record_homes(session, run, [outcome("one", "done", home_id=home), outcome("four")])
    seen = await operators.progress(fleet.databases, run, last)
    assert [failure.tenant for failure in seen.failures] == ["four"]
    assert (seen.run.done, seen.run.failed) == (2, 2)
    with pytest.raises(RunNotFound):
        await operators.progress(fleet.databases, uuid4(), 0)


async def test_a_later_outcome_is_not_committed_before_an_earlier_one(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runners share the run; the first is slow between its outcome and its commit."""
    run = await begin(fleet)
    inserted, go_on, add_up = asyncio.Event(), asyncio.Event(), runs._add_up

    async def slowly(*arguments: Any) -> None:
        if not inserted.is_set():
            inserted.set()
            await go_on.wait()
        await add_up(*arguments)

    monkeypatch.setattr(runs, "_add_up", slowly)

    async def record(tenant: str) -> None:
        async with fleet.databases.registry.begin() as session:
            await runs.record_homes(session, run, [outcome(tenant)])

    first = asyncio.create_task(record("first"))
    await inserted.wait()
    second = asyncio.create_task(record("second"))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with fleet.databases.engine.connect() as connection:
        while not (await connection.exec_driver_sql(waiting)).scalar_one():
            assert not second.done(), "it did not wait for the first"
            await connection.rollback()
            await asyncio.sleep(0.01)
    go_on.set()
    await asyncio.gather(first, second)
    seen = await operators.progress(fleet.databases, run, 0)
    assert [failure.tenant for failure in seen.failures] == ["first", "second"]
