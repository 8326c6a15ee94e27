"""`migrate-all` on real databases: what reaches the target, what stays, and what a reader is told."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import select

from control_plane.errors import BadRequest, TemplateChanged, TemplateNotFound, TenantNotFound, VersionConflict
from control_plane.migrator import HomeResult, Options, Planned, RunResult, fleet_versions, migrate_all, plan_migration
from control_plane.migrator.lane import Job, Lane
from control_plane.migrator.plan import make_plan
from control_plane.migrator.verdicts import ATTEMPTS
from control_plane.pools.databases import Databases
from control_plane.registry import template_versions
from control_plane.registry.models import Cluster, Home, Run, RunHome
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings
from control_plane.templates import Template, Templates
from tests.conftest import SECRET_KEY
from tests.support.fleet import Fleet
from tests.support.templates import with_first_versions

MODES = ("shared", "schema", "database")
MIGRATORS = """
SELECT pid FROM pg_stat_activity WHERE application_name = 'control-plane migrate' AND datname = current_database()
"""
WAITING = f"{MIGRATORS} AND wait_event_type = 'Lock'"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_first_versions(settings, tmp_path / "templates")


@pytest.fixture
def template(settings: Settings) -> Template:
    return Templates.load(settings.templates)["reference"]


@pytest.fixture
def fleet(databases: Databases, cluster: Cluster, installation_id: UUID, template: Template) -> Fleet:
    return Fleet(databases, cluster, installation_id, template)


async def run(fleet: Fleet, target: int | None = None, **options: object) -> tuple[RunResult, dict[str, HomeResult]]:
    """Migrate; the result and the outcome of each home by its label."""
    outcomes: dict[str, HomeResult] = {}

    def listen(event: Planned | HomeResult) -> None:
        if isinstance(event, HomeResult):
            assert event.label not in outcomes, "a home has one outcome"
            outcomes[event.label] = event

    chosen = Options(target=target, **options)  # type: ignore[arg-type]
    return await migrate_all(fleet.databases, fleet.template, chosen, listener=listen), outcomes


@asynccontextmanager
async def holding(fleet: Fleet, home: Home, statement: str) -> AsyncIterator[None]:
    """A transaction that has run `statement` and stays open."""
    async with fleet.admin(home) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        await connection.execute(statement.format(schema=home.schema_name, home=home.id))
        yield


async def until(connection: asyncpg.Connection, query: str, *arguments: object) -> None:
    while not await connection.fetchval(query, *arguments):
        await asyncio.sleep(0.005)  # the database sends no event


async def add_conflicting_column(fleet: Fleet, home: Home) -> None:
    async with fleet.admin(home) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        await connection.execute(f'ALTER TABLE "{home.schema_name}".tb_user ADD COLUMN bio text')


@pytest.mark.parametrize("targets", [(3,), (2, 3)], ids=["in one leap", "one by one"])
async def test_homes_of_every_mode_reach_the_target(fleet: Fleet, targets: tuple[int, ...]) -> None:
    homes = [await fleet.add(f"acme-{mode}", mode) for mode in MODES]
    for target in targets:
        result, outcomes = await run(fleet, target)
        assert (result.status, result.done, result.failed, result.left) == ("done", 3, 0, 0)
        assert [outcome.isolation for outcome in outcomes.values()][-1] == "shared", "the shared home comes last"
        for home in homes:
            assert await fleet.version(home) == target
            assert await fleet.copied_version(home) == target
    for home in homes:
        async with fleet.admin(home) as connection:
            checksum = await connection.fetchval("SELECT checksum FROM tenancy.homes WHERE id = $1", home.id)
            users = await connection.fetchval("SELECT to_regclass($1)", f"{home.schema_name}__api_v2.users")
        assert checksum == fleet.template.version(3).checksum
        assert users is not None


async def test_the_ledger_records_the_run_and_the_version_is_released(fleet: Fleet) -> None:
    home = await fleet.add("acme")
    result, _ = await run(fleet)
    async with fleet.databases.registry() as session:
        recorded = await session.get_one(Run, result.run_id)
        row = (await session.scalars(select(RunHome).where(RunHome.run_id == recorded.id))).one()
        released = await template_versions.current(session, fleet.template)
    assert (recorded.status, recorded.planned, recorded.done, recorded.failed) == ("done", 1, 1, 0)
    assert recorded.finished_at is not None
    assert (row.home_id, row.tenant, row.from_version, row.to_version, row.status) == (home.id, "acme", 1, 3, "done")
    assert released == 3


class CountingDatabases(Databases):
    """Counts the statements on administrative connections, by database."""

    statements: Counter[str]

    @asynccontextmanager
    async def admin(
        self, cluster: Cluster, database: str | None = None, *, purpose: str = "admin"
    ) -> AsyncIterator[asyncpg.Connection]:
        async with super().admin(cluster, database, purpose=purpose) as connection:

            def count(query: asyncpg.connection.LoggedQuery) -> None:
                self.statements[database or cluster.database] += 1

            with connection.query_logger(count):
                yield connection


async def test_nothing_to_do_costs_one_query_per_database(fleet: Fleet, settings: Settings) -> None:
    for mode in MODES:
        await fleet.add(f"acme-{mode}", mode, version=3)
    other = await fleet.add("other", "database", version=3)
    counting = CountingDatabases(fleet.databases.registry_dsn, SecretBox(SECRET_KEY), settings)
    counting.statements = Counter()
    try:
        result = await migrate_all(counting, fleet.template, Options())
    finally:
        await counting.aclose()
    assert (result.status, result.run_id, result.current) == ("done", None, 4)
    assert str(result.plan) == "nothing to do: 4 homes at version 3"
    assert counting.statements[fleet.cluster.database] == counting.statements[other.database] == 1
    assert counting.statements.total() == 3


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


async def test_homes_that_changed_since_the_plan_are_looked_at_again(fleet: Fleet) -> None:
    homes = {slug: await fleet.add(slug) for slug in ("untouched", "ahead", "there", "gone")}
    plan = await make_plan(fleet.databases, fleet.template, 3)
    await run(fleet, 2, only=["ahead"])
    await run(fleet, 3, only=["there"])
    async with fleet.admin() as connection:
        await connection.execute("SELECT tenancy.drop_home($1)", homes["gone"].id)
    outcomes: dict[str, HomeResult] = {}
    job = Job(
        fleet.databases, fleet.template, 3, asyncio.Event(), lambda outcome: outcomes.update({outcome.label: outcome})
    )
    await Lane(job, fleet.cluster, plan.homes).run(2)
    assert {label: outcome.status for label, outcome in outcomes.items()} == {
        "untouched": "done",
        "ahead": "done",
        "there": "done",
        "gone": "skipped",
    }
    assert [await fleet.version(homes[slug]) for slug in homes] == [3, 3, 3, None]


async def test_no_more_homes_run_at_a_time_than_allowed(fleet: Fleet) -> None:
    for number in range(12):
        await fleet.add(f"acme-{number}")
    seen = 0
    async with fleet.admin() as watch:
        running = asyncio.create_task(run(fleet, concurrency=3))
        while not running.done():
            seen = max(seen, await watch.fetchval(f"SELECT count(*) FROM ({MIGRATORS}) AS m"))
    assert (await running)[0].done == 12
    assert seen == 3


async def test_a_template_that_changed_after_its_release_is_refused_before_anything_runs(
    fleet: Fleet, tmp_path: Path
) -> None:
    home = await fleet.add("acme")
    async with fleet.databases.registry.begin() as session:
        await template_versions.release(session, fleet.template, 2)
    shutil.copytree(fleet.databases.settings.templates, tmp_path / "changed")
    with (tmp_path / "changed/reference/versions/0002_profiles/expand.sql").open("a") as file:
        file.write("-- one more line\n")
    fleet.template = Templates.load(tmp_path / "changed")["reference"]
    with pytest.raises(TemplateChanged):
        await run(fleet)
    with pytest.raises(TemplateChanged):
        await plan_migration(fleet.databases, fleet.template, Options())
    assert await fleet.version(home) == 1


async def test_a_plan_names_the_work_and_changes_nothing(fleet: Fleet) -> None:
    homes = [await fleet.add(f"acme-{mode}", mode) for mode in MODES]
    await fleet.add("second", "shared")
    plan = await plan_migration(fleet.databases, fleet.template, Options())
    assert {(group.isolation, group.from_version, group.homes, group.tenants) for group in plan.groups} == {
        ("shared", 1, 1, 2),
        ("schema", 1, 1, 1),
        ("database", 1, 1, 1),
    }
    assert [await fleet.version(home) for home in homes] == [1, 1, 1]
    async with fleet.databases.registry() as session:
        assert await template_versions.current(session, fleet.template) is None
        assert (await session.scalars(select(Run))).all() == []


async def test_a_version_that_lies_behind_is_refused_and_homes_past_it_are_left(fleet: Fleet) -> None:
    ahead = await fleet.add("ahead", version=3)
    with pytest.raises(VersionConflict):
        await run(fleet, 2)
    behind = await fleet.add("behind", version=1)
    result, outcomes = await run(fleet, 2)
    assert (result.status, list(outcomes), result.plan.ahead) == ("done", ["behind"], 1)
    assert (await fleet.version(ahead), await fleet.version(behind)) == (3, 2)
    with pytest.raises(TemplateNotFound):
        await run(fleet, 4)


async def test_a_trial_on_named_tenants_touches_no_other_and_releases_nothing(fleet: Fleet) -> None:
    chosen, other = await fleet.add("chosen"), await fleet.add("other")
    await fleet.add("common", "shared")
    result, outcomes = await run(fleet, 3, only=["chosen"])
    assert (result.done, list(outcomes)) == (1, ["chosen"])
    assert (await fleet.version(chosen), await fleet.version(other)) == (3, 1)
    async with fleet.databases.registry() as session:
        assert await template_versions.current(session, fleet.template) is None
    with pytest.raises(BadRequest, match="common"):
        await run(fleet, 3, only=["common"])
    with pytest.raises(TenantNotFound, match="nobody"):
        await run(fleet, 3, only=["nobody", "other"])
    with pytest.raises(VersionConflict, match="chosen"):
        await run(fleet, 2, only=["chosen"])
    assert await fleet.version(other) == 1


async def test_a_tenant_that_is_being_deleted_is_left_alone(fleet: Fleet) -> None:
    home = await fleet.add("leaving")
    async with fleet.admin() as connection:
        await connection.execute("UPDATE tenancy.tenants SET state = 'deleting' WHERE home_id = $1", home.id)
    result, outcomes = await run(fleet)
    assert (result.status, outcomes, result.plan.deleting) == ("done", {}, ("leaving",))
    assert await fleet.version(home) == 1


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


async def test_a_stopped_run_finishes_what_is_in_flight_and_the_next_one_goes_on(fleet: Fleet) -> None:
    for number in range(8):
        await fleet.add(f"acme-{number}")
    stop = asyncio.Event()

    def stop_at_first(event: Planned | HomeResult) -> None:
        if isinstance(event, HomeResult):
            stop.set()

    result = await migrate_all(
        fleet.databases, fleet.template, Options(concurrency=2), stop=stop, listener=stop_at_first
    )
    assert result.status == "halted"
    assert result.done + result.left == 8
    assert 0 < result.done < 8
    async with fleet.databases.registry() as session:
        assert (await session.get_one(Run, result.run_id)).status == "halted"
    rest, _ = await run(fleet)
    assert (rest.status, rest.done) == ("done", result.left)


async def test_a_run_halts_after_the_given_number_of_failures(fleet: Fleet) -> None:
    for number in range(4):
        await add_conflicting_column(fleet, await fleet.add(f"bad-{number}"))
    result, outcomes = await run(fleet, concurrency=1, halt_failures=2)
    assert (result.status, result.failed, result.left) == ("halted", 2, 2)
    assert len(outcomes) == 2


async def test_migrations_of_different_homes_do_not_get_in_each_others_way(fleet: Fleet) -> None:
    """Printing a constraint locks its table: an audit that looked at those of other homes would deadlock with them."""
    for number in range(16):
        await fleet.add(f"acme-{number}")
    for target in (2, 3):
        _, outcomes = await run(fleet, target, concurrency=4)
        assert {outcome.attempts for outcome in outcomes.values()} == {1}


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


async def test_wrong_copies_in_the_registry_are_corrected(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=3)
    async with fleet.databases.registry.begin() as session:
        (await session.get_one(Home, home.id)).pattern_version = 1
    result, _ = await run(fleet)
    assert result.run_id is None
    assert await fleet.copied_version(home) == 3


async def test_versions_are_counted_by_cluster_and_isolation(fleet: Fleet) -> None:
    for slug, mode, version in (("one", "schema", 1), ("two", "schema", 3), ("three", "database", 3)):
        await fleet.add(slug, mode, version)
    await fleet.add("four", "shared", 2)
    await fleet.add("five", "shared", 2)
    counts, unreached = await fleet_versions(fleet.databases)
    assert unreached == []
    assert {(count.isolation, count.version, count.homes, count.tenants) for count in counts} == {
        ("schema", 1, 1, 1),
        ("schema", 3, 1, 1),
        ("database", 3, 1, 1),
        ("shared", 2, 1, 2),
    }
