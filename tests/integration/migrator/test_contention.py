"""Migrations beside each other, beside requests and beside provisioning."""

from __future__ import annotations

import asyncio

import pytest

from control_plane.migrator.verdicts import ATTEMPTS
from tests.integration.migrator.runs import MIGRATORS, WAITING, add_conflicting_column, holding, run, until
from tests.support.fleet import Fleet


async def test_a_home_whose_table_is_in_use_is_tried_again_while_others_run(fleet: Fleet) -> None:
    busy, free = await fleet.add("busy"), await fleet.add("free")
    async with fleet.admin() as watch:
        async with holding(fleet, busy, 'LOCK TABLE "{schema}".tb_user IN ACCESS SHARE MODE'):
            running = asyncio.create_task(run(fleet, concurrency=1))
            await until(watch, "SELECT version = 3 FROM tenancy.homes WHERE id = $1", free.id)
            await until(watch, f"SELECT EXISTS ({WAITING})")
            await until(watch, f"SELECT NOT EXISTS ({WAITING})")
        result, outcomes = await running
    assert (result.status, result.done) == ("done", 2)
    assert outcomes["busy"].attempts > 1


async def test_a_home_that_another_migration_holds_is_given_up_after_the_last_attempt(fleet: Fleet) -> None:
    held = await fleet.add("held")
    await fleet.add("free")
    async with holding(fleet, held, "SELECT pg_advisory_xact_lock(hashtextextended('tenancy.home:{home}', 0))"):
        result, outcomes = await run(fleet)
    assert (result.done, result.failed) == (1, 1)
    assert (outcomes["held"].sqlstate, outcomes["held"].attempts) == ("CP002", ATTEMPTS)
    result, outcomes = await run(fleet)
    assert (result.status, list(outcomes)) == ("done", ["held"])


async def test_no_more_homes_run_at_a_time_than_allowed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.migrator.pace.START", 12)
    for number in range(12):
        await fleet.add(f"acme-{number}")
    seen = 0
    async with fleet.admin() as watch:
        running = asyncio.create_task(run(fleet, concurrency=3))
        while not running.done():
            seen = max(seen, await watch.fetchval(f"SELECT count(*) FROM ({MIGRATORS}) AS m"))
    assert (await running)[0].done == 12
    assert seen == 3


async def test_a_tenant_provisioned_during_the_run_ends_on_its_target(fleet: Fleet) -> None:
    busy = await fleet.add("busy")
    async with holding(fleet, busy, 'LOCK TABLE "{schema}".tb_user IN ACCESS SHARE MODE'):
        running = asyncio.create_task(run(fleet))
        async with fleet.admin() as watch:
            await until(watch, f"SELECT EXISTS ({WAITING})")
        late = await fleet.add("late", version=1)
    result, outcomes = await running
    assert (result.done, set(outcomes)) == (2, {"busy", "late"})
    assert await fleet.version(late) == 3


async def test_migrations_of_different_homes_do_not_get_in_each_others_way(fleet: Fleet) -> None:
    """Printing a constraint locks its table: an audit that looked at those of other homes would deadlock with them."""
    for number in range(16):
        await fleet.add(f"acme-{number}")
    for target in (2, 3):
        _, outcomes = await run(fleet, target, concurrency=4)
        assert {outcome.attempts for outcome in outcomes.values()} == {1}


async def test_a_home_does_not_wait_for_the_commit_of_another(fleet: Fleet) -> None:
    """Not when the database knows the version, and not when it is new to it."""
    held, other = await fleet.add("held"), await fleet.add("other")
    await add_conflicting_column(fleet, await fleet.add("bad"))
    _, outcomes = await run(fleet, 2, only=["bad"])
    assert outcomes["bad"].status == "failed"
    async with fleet.admin(held) as connection, connection.transaction():
        await connection.execute(fleet.template.script(1, 2).message(held.id, held.schema_name, 2.0))
        _, outcomes = await run(fleet, 2, only=["other"])
        assert (outcomes["other"].status, outcomes["other"].attempts) == ("done", 1)
    assert await fleet.version(held) == await fleet.version(other) == 2
