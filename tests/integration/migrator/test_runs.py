"""`migrate-all` on real databases: what reaches the target, what stays, and what a reader is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import select

from control_plane.errors import BadRequest, TenantNotFound, VersionConflict
from control_plane.migrator import Event, HomeResult, Options, fleet_versions, migrate_all
from control_plane.pools.databases import Databases
from control_plane.registry import template_versions
from control_plane.registry.models import Cluster, Home, Run, RunHome
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings
from tests.conftest import SECRET_KEY
from tests.integration.migrator.runs import MODES, run
from tests.support.fleet import Fleet


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


async def test_a_stopped_run_finishes_what_is_in_flight_and_the_next_one_goes_on(fleet: Fleet) -> None:
    for number in range(8):
        await fleet.add(f"acme-{number}")
    stop = asyncio.Event()

    def stop_at_first(event: Event) -> None:
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
