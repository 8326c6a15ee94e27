"""Homes that cannot be migrated stay as they were and are named; all others are done."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

from sqlalchemy import select

from control_plane.migrator.verdicts import ATTEMPTS
from control_plane.pools.databases import Databases
from control_plane.registry.models import Home, RunHome
from control_plane.registry.secrets import SecretBox
from tests.conftest import SECRET_KEY
from tests.integration.migrator.runs import MIGRATORS, MODES, add_conflicting_column, holding, run
from tests.support.fleet import Fleet


async def test_a_home_that_cannot_go_stays_and_is_named_and_all_others_are_done(fleet: Fleet) -> None:
    bad = await fleet.add("bad")
    await add_conflicting_column(fleet, bad)
    good = [await fleet.add(f"good-{mode}", mode) for mode in MODES]
    result, outcomes = await run(fleet)
    assert (result.status, result.done, result.failed) == ("failed", 3, 1)
    failure = outcomes["bad"]
    assert (failure.sqlstate, failure.attempts) == ("42701", 1)
    assert failure.error == (
        'column "bio" of relation "tb_user" already exists: found text, wanted text NOT NULL DEFAULT \'\'::text'
        " (0002_profiles/expand.sql)"
    )
    assert await fleet.version(bad) == await fleet.copied_version(bad) == 1
    assert [await fleet.version(home) for home in good] == [3, 3, 3]
    async with fleet.databases.registry() as session:
        row = (await session.scalars(select(RunHome).where(RunHome.status == "failed"))).one()
    assert (row.tenant, row.sqlstate, row.error) == ("bad", "42701", failure.error)


async def test_the_line_of_a_statement_that_cannot_be_understood_is_named(fleet: Fleet) -> None:
    home = await fleet.add("acme")
    async with fleet.admin(home) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        await connection.execute(f'ALTER TABLE "{home.schema_name}".tb_user DROP COLUMN email CASCADE')
    _, outcomes = await run(fleet)
    expand = fleet.template.version(2).path / "expand.sql"
    place, _, line = (outcomes["acme"].error or "").rpartition("(")[2].rstrip(")").rpartition(":")
    assert place == "0002_profiles/expand.sql"
    assert "email" in expand.read_text().splitlines()[int(line) - 1]


async def test_a_run_halts_after_the_given_number_of_failures(fleet: Fleet) -> None:
    for number in range(4):
        await add_conflicting_column(fleet, await fleet.add(f"bad-{number}"))
    result, outcomes = await run(fleet, concurrency=1, halt_failures=2)
    assert (result.status, result.failed, result.left) == ("halted", 2, 2)
    assert len(outcomes) == 2


async def test_a_lost_connection_loses_no_home(fleet: Fleet) -> None:
    homes = [await fleet.add(f"acme-{number}") for number in range(12)]
    killed = 0
    async with fleet.admin() as watch:
        running = asyncio.create_task(run(fleet))
        while not running.done():
            if killed < 3:
                killed += await watch.fetchval(f"SELECT count(pg_terminate_backend(pid)) FROM ({MIGRATORS}) AS m")
            await asyncio.sleep(0.02)
    result, _ = await running
    assert killed >= 3
    assert (result.status, result.done) == ("done", 12)
    assert [await fleet.version(home) for home in homes] == [3] * 12


async def test_a_database_that_does_not_answer_is_named_and_the_rest_is_done(fleet: Fleet) -> None:
    good = await fleet.add("good")
    async with fleet.databases.registry.begin() as session:
        lost = Home(
            id=uuid4(),
            cluster_id=fleet.cluster.id,
            isolation="database",
            template=fleet.template.name,
            database="t_000000000000",
            schema_name="t_000000000000",
            role_name=f"lost_{uuid4().hex[:8]}",
            password=b"",
            ready=True,
        )
        session.add(lost)
    result, _ = await run(fleet)
    assert (result.status, result.done) == ("failed", 1)
    assert [each.place.database for each in result.plan.unreached] == ["t_000000000000"]
    assert await fleet.version(good) == 3


async def test_a_home_whose_statements_take_too_long_stays_and_the_setting_is_named(fleet: Fleet) -> None:
    """A statement that waits counts, too: the table is held by somebody for longer."""
    home = await fleet.add("acme")
    short = fleet.databases.settings.model_copy(update={"migrate_statement_timeout": 0.05, "lock_timeout": 30.0})
    databases = Databases(fleet.databases.registry_dsn, SecretBox(SECRET_KEY), short)
    try:
        async with holding(fleet, home, 'LOCK TABLE "{schema}".tb_user IN ACCESS SHARE MODE'):
            result, outcomes = await run(replace(fleet, databases=databases))
    finally:
        await databases.aclose()
    assert (result.status, result.failed) == ("failed", 1)
    assert (outcomes["acme"].sqlstate, outcomes["acme"].attempts) == ("57014", ATTEMPTS)
    assert outcomes["acme"].error == (
        "canceling statement due to statement timeout: a statement took longer than the 0.05 s of "
        "CP_MIGRATE_STATEMENT_TIMEOUT"
    )
    assert await fleet.version(home) == 1
