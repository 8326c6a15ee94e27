"""What a version does beside its transaction, on homes with rows: in all modes, once, and up to the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import asyncpg
import psycopg
import pytest
from sqlalchemy import select

from control_plane.errors import BelowMinimum
from control_plane.isolation import isolation_of
from control_plane.isolation.shared import SharedIsolation
from control_plane.migrator import Event, HomeResult, Options, StepProgress, fleet_versions, migrate_all, plan_migration
from control_plane.migrator.job import Job
from control_plane.migrator.lane import Lane
from control_plane.migrator.reins import Reins
from control_plane.migrator.removals import require_minimum
from control_plane.registry.models import Home, RunHome
from control_plane.settings import Settings
from control_plane.templates import Template, Templates
from tests.integration.migrator.runs import INVALID, MODES, run
from tests.support.fleet import Fleet
from tests.support.stepped import ROWS, TOUCHES, add, debts, put, things, with_stepped_template
from tests.support.structure import difference, structure

_HELD = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_stepped_template(settings, tmp_path / "stepped")


@pytest.fixture
def template(settings: Settings) -> Template:
    return Templates.load(settings.templates)["sample"]


async def stopped_in_backfill(fleet: Fleet, rows: int = 1) -> None:
    """A run that ends when a home has that many rows behind it."""
    stop = asyncio.Event()

    def listen(event: Event) -> None:
        if isinstance(event, StepProgress) and event.rows >= rows:
            stop.set()

    result = await migrate_all(fleet.databases, fleet.template, Options(), stop=stop, listener=listen)
    assert (result.status, result.done, result.left) == ("halted", 0, 1)


async def new_home(fleet: Fleet, mode: str) -> Home:
    """As a tenant gets it that comes after the last version; a shared one beside the fleet's."""
    if mode != "shared":
        return await fleet.add(f"new-{mode}", mode, version=fleet.template.latest)
    home = SharedIsolation().new_home(fleet.installation_id, fleet.cluster, fleet.template.name, fleet.databases.box)
    async with fleet.admin() as connection:
        await SharedIsolation._build_home(connection, fleet.databases, home, fleet.template, fleet.template.latest)
    return home


@pytest.mark.parametrize("mode", MODES)
async def test_steps_are_done_before_the_next_version_and_end_in_what_new_homes_are(fleet: Fleet, mode: str) -> None:
    home = await add(fleet, "acme", mode)
    told: list[StepProgress] = []
    outcomes: list[HomeResult] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepProgress):
            told.append(event)
        elif isinstance(event, HomeResult):
            outcomes.append(event)

    result = await migrate_all(fleet.databases, fleet.template, Options(), listener=listen)
    assert (result.status, result.done) == ("done", 1)
    assert [await fleet.version(home), await fleet.copied_version(home)] == [4, 4]
    assert await things(fleet, home, "touched") == [TOUCHES] * ROWS
    assert await debts(fleet, home) == []
    assert [(each.version, each.step, each.statement, each.rows) for each in told] == [
        (2, "concurrent", 1, 0),
        *((2, "backfill", 1, rows) for rows in (0, 10, 20, 25)),
        *((2, "backfill", 2, 25 + rows) for rows in (0, 20, 25)),
        (3, "concurrent", 1, 0),
        (3, "concurrent", 2, 0),
    ]
    (outcome,) = outcomes
    assert outcome.touched is not None
    assert (outcome.reached, outcome.touched.rows) == (4, TOUCHES * ROWS)
    assert outcome.touched.objects["indexes"] == ["tb_thing_name"]
    assert outcome.touched.objects["functions"] == ["fn_number_things"]

    new = await new_home(fleet, mode)
    async with fleet.admin(home) as upgraded, fleet.admin(new) as fresh:
        assert difference(await structure(upgraded, home.id), await structure(fresh, new.id)) == {}
    again, _ = await run(fleet)
    assert (again.run_id, again.current) == (None, 2)


@pytest.mark.parametrize("mode", MODES)
async def test_a_run_that_is_stopped_between_batches_is_gone_on_with(fleet: Fleet, mode: str) -> None:
    home = await add(fleet, "acme", mode)
    await stopped_in_backfill(fleet, rows=20)
    assert await debts(fleet, home) == [(2, "backfill", 0, 20)]
    assert sum(map(bool, await things(fleet, home, "touched"))) == 20
    assert await fleet.copied_version(home) == 2, "requests meet what the version has made"
    ((count,), _) = await fleet_versions(fleet.databases)
    assert (count.version, count.homes, count.owing) == (2, 1, 1)

    plan = await plan_migration(fleet.databases, fleet.template, Options(target=2))
    assert f"main: 1 {mode} homes (1 tenants) have steps of version 2 to finish" in str(plan)
    plan = await plan_migration(fleet.databases, fleet.template, Options(target=4))
    assert "from version 2 to 4, 1 with steps of version 2 to finish first" in str(plan)

    assert "version 3 goes on after its transaction: concurrent.sql" in str(plan)
    assert plan.beside == {3: ("concurrent",)}

    result, _ = await run(fleet, 2)
    assert (result.status, result.done) == ("done", 1)
    assert await debts(fleet, home) == []
    assert await things(fleet, home, "touched") == [TOUCHES] * ROWS
    assert (await run(fleet))[0].status == "done"
    assert await fleet.version(home) == 4


async def test_no_later_version_begins_over_open_steps(fleet: Fleet) -> None:
    home = await add(fleet, "acme")
    await stopped_in_backfill(fleet)
    async with fleet.admin(home) as connection:
        with pytest.raises(asyncpg.PostgresError, match="still owes steps") as refused:
            await connection.execute(fleet.template.script(2, 3).message(home.id, home.schema_name, 2))
    assert refused.value.sqlstate == "CP001"
    plan = await plan_migration(fleet.databases, fleet.template, Options())
    unaware = replace(plan.homes[0], owed=())
    outcomes: list[HomeResult] = []
    await Lane(Job(fleet.databases, fleet.template, 4, Reins(), outcomes.append), fleet.cluster, [unaware], 1).run()
    assert [(each.status, each.attempts) for each in outcomes] == [("done", 2)]
    assert await things(fleet, home, "touched") == [TOUCHES] * ROWS


async def test_a_paused_run_changes_no_row_until_it_may_go_on(fleet: Fleet) -> None:
    home = await add(fleet, "acme")
    reins, paused = Reins(), asyncio.Event()

    def listen(event: Event) -> None:
        if isinstance(event, StepProgress) and event.rows and not paused.is_set():
            reins.pause()
            paused.set()

    outcomes: list[HomeResult] = []
    job = Job(fleet.databases, fleet.template, 4, reins, outcomes.append, listen)
    plan = await plan_migration(fleet.databases, fleet.template, Options())
    running = asyncio.create_task(Lane(job, fleet.cluster, plan.homes, 1).run())
    await paused.wait()
    await asyncio.sleep(0.2)  # nothing goes on by itself
    assert (await debts(fleet, home), outcomes) == ([(2, "backfill", 0, 10)], [])
    async with fleet.admin() as other:
        await other.execute("SELECT tenancy.hold_home($1)", home.id)  # nor keeps it the home from others
    reins.go_on()
    await running
    assert [each.status for each in outcomes] == ["done"]


@pytest.mark.parametrize(("status", "version"), [("done", 4), ("failed", 2)])
async def test_nothing_of_a_step_is_left_in_the_session(fleet: Fleet, status: str, version: int) -> None:
    first, second = [await add(fleet, slug, rows=1) for slug in ("first", "second")]
    if status == "failed":
        await put(fleet, first, "thing 0")
    reins, heard = Reins(), asyncio.Event()
    outcomes: list[str] = []

    def report(outcome: HomeResult) -> None:
        outcomes.append(outcome.status)
        if not heard.is_set():
            reins.pause()
        heard.set()

    plan = await plan_migration(fleet.databases, fleet.template, Options())
    in_order = sorted(plan.homes, key=lambda home: home.label)
    job = Job(fleet.databases, fleet.template, 4, reins, report)
    running = asyncio.create_task(Lane(job, fleet.cluster, in_order, 1).run())
    await heard.wait()
    async with fleet.admin() as other:
        assert await other.fetchval(_HELD) == 0
    reins.go_on()
    await running
    assert outcomes == [status, "done"]
    assert [await fleet.version(home) for home in (first, second)] == [version, 4]


async def test_a_build_that_fails_is_told_and_leaves_nothing_invalid(fleet: Fleet) -> None:
    bad, good = await add(fleet, "bad"), await add(fleet, "good")
    await put(fleet, bad, "thing 1")
    result, outcomes = await run(fleet)
    assert (result.status, result.done, result.failed) == ("failed", 1, 1)
    failure = outcomes["bad"]
    assert (failure.sqlstate, failure.reached) == ("23505", 2)
    assert failure.error == 'could not create unique index "tb_thing_name" (0002_step/concurrent.sql:2)'
    assert [await fleet.version(home) for home in (bad, good)] == [2, 4]
    assert await fleet.copied_version(bad) == 2
    async with fleet.admin() as connection, connection.transaction():
        assert await connection.fetch(INVALID) == []
        await connection.execute("SET LOCAL ROLE cp_owner")
        await connection.execute(f"UPDATE \"{bad.schema_name}\".tb_thing SET name = id::text WHERE name = 'thing 1'")
    result, outcomes = await run(fleet)
    assert (result.status, list(outcomes), await fleet.version(bad)) == ("done", ["bad"], 4)


async def test_what_rows_hold_is_not_told(fleet: Fleet) -> None:
    home = await add(fleet, "acme")
    async with fleet.admin() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        table = f'"{home.schema_name}".tb_thing'
        await connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT secret CHECK (touched < 1 OR name <> 'thing 7')")
    _, outcomes = await run(fleet)
    assert outcomes["acme"].error == (
        'new row for relation "tb_thing" violates check constraint "secret" (0002_step/backfill.sql:1)'
    )
    async with fleet.databases.registry() as session:
        assert await session.scalar(select(RunHome.error)) == outcomes["acme"].error


async def test_a_home_that_is_brought_up_before_anybody_uses_it_owes_nothing(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=1)
    upgrade = isolation_of("schema").upgrade
    assert await upgrade(fleet.databases, fleet.cluster, home, fleet.template, 1, 4) == 4
    assert await debts(fleet, home) == []
    new = await new_home(fleet, "schema")
    async with fleet.admin() as connection:
        assert difference(await structure(connection, home.id), await structure(connection, new.id)) == {}


async def test_a_contract_waits_for_steps_of_the_version_before_it(fleet: Fleet, tmp_path: Path) -> None:
    await add(fleet, "acme")
    await stopped_in_backfill(fleet)
    contract = tmp_path / "stepped/sample/versions/0003_step/contract.sql"
    contract.write_text("-- nothing\n")
    template = Templates.load(tmp_path / "stepped")["sample"]
    plan = replace(await plan_migration(fleet.databases, fleet.template, Options()), template=template)
    with pytest.raises(BelowMinimum, match="with steps of version 2 to finish: acme"):
        require_minimum(template, 2, plan)


# What versions 4 and 5 of `tenancy` brought, taken away; of what they replaced only the names have to be there.
_OLDER = """
SET LOCAL ROLE cp_tenancy;
SET LOCAL search_path = tenancy;
DROP TABLE open_steps;
DROP FUNCTION owe_steps, require_steps_done, hold_home, hold_build, require_wanted, note_step, finish_step,
              touched_relations, touched_routines, hand_over, audit, touched, posture, grant_home, begin_migration;
CREATE FUNCTION touched(uuid) RETURNS void LANGUAGE sql BEGIN ATOMIC END;
CREATE FUNCTION posture() RETURNS void LANGUAGE sql BEGIN ATOMIC END;
CREATE FUNCTION grant_home(uuid) RETURNS void LANGUAGE sql BEGIN ATOMIC END;
CREATE FUNCTION begin_migration(uuid, integer, integer, integer[]) RETURNS void LANGUAGE sql BEGIN ATOMIC END;
DELETE FROM versions WHERE version >= 4;
"""


async def test_a_database_of_the_release_before_is_read_and_brought_up(fleet: Fleet) -> None:
    home = await add(fleet, "acme")
    async with fleet.admin() as connection:
        await connection.execute(_OLDER)
    ((count,), unreached) = await fleet_versions(fleet.databases)
    assert (count.homes, count.owing, unreached) == (1, 0, [])
    plan = await plan_migration(fleet.databases, fleet.template, Options())
    assert (len(plan.homes), len(plan.outdated), plan.unreached) == (1, 1, ())
    assert (await run(fleet))[0].status == "done"
    assert await things(fleet, home, "touched") == [TOUCHES] * ROWS


async def test_whoever_deletes_a_tenant_does_not_wait_for_the_end_of_its_backfill(fleet: Fleet) -> None:
    home = await add(fleet, "acme")
    dsn = fleet.databases.box.open(fleet.cluster.dsn)
    dropped: list[asyncio.Task[str]] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepProgress) and event.rows and not dropped:  # a batch is done, and the next one comes
            with psycopg.connect(dsn, dbname=fleet.cluster.database) as connection:
                connection.execute("UPDATE tenancy.tenants SET state = 'deleting' WHERE home_id = %s", [home.id])
            dropped.append(asyncio.create_task(deleter.execute("SELECT tenancy.drop_home($1)", home.id)))
        elif isinstance(event, HomeResult):
            outcomes.append(event)

    outcomes: list[HomeResult] = []
    async with fleet.admin() as deleter:
        await migrate_all(fleet.databases, fleet.template, Options(), listener=listen)
        await dropped[0]
    assert [(each.status, each.error) for each in outcomes] == [("skipped", "the tenant is being deleted")]
    assert await fleet.version(home) is None
