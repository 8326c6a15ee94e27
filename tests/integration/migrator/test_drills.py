"""What goes wrong with a fleet in practice, and what a run makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from control_plane.embedded import EmbeddedServer
from control_plane.isolation.cluster import prepare_cluster
from control_plane.migrator import Event, Options, Paced, Policy, migrate_all
from control_plane.migrator.lane import _STRAIN
from control_plane.migrator.pace import START, Pace
from control_plane.migrator.policy import WavePolicy
from control_plane.pools.connect import connect
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.templates import Template
from tests.integration.migrator.runs import MIGRATORS, MODES, add_conflicting_column, run, until
from tests.support.fleet import Fleet
from tests.support.servers import FAST, dsn_with, temporary_home

HOMES = 100
NO_TRIAL = Policy(waves=WavePolicy(canaries=0))  # whose few homes might all be among those that fail


@pytest.fixture(scope="module")
def mortal() -> Iterator[EmbeddedServer]:
    """A server that a test may stop or fill up."""
    small = {"max_connections": "50", "max_locks_per_transaction": "64"}
    with temporary_home() as home, EmbeddedServer(home, settings=FAST | small) as embedded:
        yield embedded


@pytest_asyncio.fixture
async def frail(mortal: EmbeddedServer, databases: Databases, installation_id: UUID, template: Template) -> Fleet:
    """A fleet on that server."""
    dsn = dsn_with(mortal.admin_dsn, database="postgres")
    cluster = Cluster(
        id=uuid4(),
        name="frail",
        dsn=databases.box.seal(dsn),
        database=await prepare_cluster(databases, dsn, installation_id),
        isolations=list(MODES),
        status="active",
    )
    async with databases.registry.begin() as session:
        session.add(cluster)
    return Fleet(databases, cluster, installation_id, template)


async def _with_failures(fleet: Fleet, share: float) -> None:
    """A fleet in which each home that is `1 / share` after the one before cannot take the next version."""
    for number in range(HOMES):
        home = await fleet.add(f"acme-{number}")
        if number % round(1 / share) == round(1 / share) - 1:
            await add_conflicting_column(fleet, home)


@pytest.mark.long
@pytest.mark.parametrize("rule", [{"halt_failures": 5}, {"halt_rate": 0.1}, {}], ids=["failures", "rate", "none"])
async def test_one_failing_home_in_a_hundred_stops_no_run(fleet: Fleet, rule: dict[str, float]) -> None:
    await _with_failures(fleet, 0.01)
    result, _ = await run(fleet, 2, **rule)
    assert (result.status, result.done, result.failed, result.left) == ("failed", HOMES - 1, 1, 0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("rule", "reason", "least"),
    [
        ({"halt_failures": 5}, "5 homes failed", 5),
        ({"halt_rate": 0.1}, "of the latest", 3),  # of 20, the fewest that are judged
    ],
    ids=["failures", "rate"],
)
async def test_one_failing_home_in_five_stops_a_run_that_has_a_rule(
    fleet: Fleet, rule: dict[str, float], reason: str, least: int
) -> None:
    await _with_failures(fleet, 0.2)
    result, _ = await run(fleet, 2, policy=NO_TRIAL, **rule)
    assert result.status == "halted"
    assert reason in (result.reason or "")
    # Which homes came before that is chance: the order of a wave is drawn by the run.
    assert least <= result.failed < 20
    assert result.left > 0
    assert result.done + result.failed + result.left == HOMES


@pytest.mark.long
async def test_one_failing_home_in_five_is_named_where_no_rule_stops_the_run(fleet: Fleet) -> None:
    await _with_failures(fleet, 0.2)
    result, outcomes = await run(fleet, 2, policy=NO_TRIAL)
    assert (result.status, result.done, result.failed) == ("failed", HOMES - 20, 20)
    assert {outcome.sqlstate for outcome in outcomes.values() if outcome.status == "failed"} == {"42701"}


async def test_a_server_that_is_lost_and_comes_back_loses_no_home(frail: Fleet, mortal: EmbeddedServer) -> None:
    homes = [await frail.add(f"acme-{number}") for number in range(30)]
    running = asyncio.create_task(run(frail, 2, concurrency=2))
    async with frail.admin() as watch:
        await until(watch, "SELECT count(*) > 3 FROM tenancy.homes WHERE version = 2")
    mortal.stop()
    await asyncio.sleep(0.3)
    mortal.start()
    result, outcomes = await running
    assert (result.status, result.done) == ("done", 30)
    assert max(outcome.attempts for outcome in outcomes.values()) > 1, "the run was over before the server was lost"
    assert [await frail.version(home) for home in homes] == [2] * 30


@asynccontextmanager
async def _full_lock_table(fleet: Fleet) -> AsyncIterator[asyncpg.Connection]:
    async with fleet.admin() as hog:
        for first in range(0, 1_000_000, 1_000):
            try:
                await hog.execute(f"SELECT pg_advisory_lock(n) FROM generate_series({first}, {first + 999}) AS n")
            except asyncpg.OutOfMemoryError:
                break
        yield hog
        await hog.execute("SELECT pg_advisory_unlock_all()")


async def test_a_full_lock_table_slows_a_run_and_fails_no_home(frail: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    felt = asyncio.Event()
    exhausted = Pace.exhausted

    def feel(self: Pace) -> None:
        exhausted(self)
        felt.set()

    monkeypatch.setattr(Pace, "exhausted", feel)
    for number in range(30):
        await frail.add(f"acme-{number}")
    running = asyncio.create_task(run(frail, 2))
    async with frail.admin() as watch:
        await until(watch, "SELECT count(*) > 2 FROM tenancy.homes WHERE version = 2")
    async with _full_lock_table(frail):
        await felt.wait()
    result, outcomes = await running
    assert (result.status, result.done) == ("done", 30)
    assert max(outcome.attempts for outcome in outcomes.values()) > 1


async def _blocked(connection: asyncpg.Connection) -> int:
    row = await connection.fetchrow(_STRAIN)
    assert row is not None
    return int(row["blocked"])


@pytest.mark.parametrize("isolation", MODES)
async def test_a_request_that_waits_for_a_migration_is_seen(fleet: Fleet, isolation: str) -> None:
    """By the administrative role, which is no superuser: it must be allowed to see what tenants' sessions wait for."""
    home = await fleet.add("acme", isolation)
    table = f'"{home.schema_name}".tb_user'
    request = await connect(
        fleet.databases.box.open(fleet.cluster.dsn),
        application_name="a tenant's request",
        database=home.database,
        user=home.role_name,
        password=fleet.databases.box.open(home.password),
    )
    async with (
        fleet.admin(home) as looking,
        fleet.databases.admin(fleet.cluster, home.database, purpose="migrate") as migration,
    ):
        async with migration.transaction():
            await migration.execute(f"SET LOCAL ROLE cp_owner; LOCK TABLE {table}")
            assert await _blocked(looking) == 0
            waiting = asyncio.create_task(request.execute(f"SELECT FROM {table}"))
            waits = "SELECT bool_or($1 = ANY (pg_blocking_pids(pid))) FROM pg_stat_activity"
            await until(looking, waits, migration.get_server_pid())
            assert await _blocked(looking) == 1
        await waiting
        assert await _blocked(looking) == 0
    await request.close()


async def test_a_cluster_with_room_is_given_more_homes_at_a_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.migrator.pace.WINDOW", 0.02)
    for number in range(40):
        await fleet.add(f"acme-{number}")
    paces: list[Paced] = []

    def listen(event: Event) -> None:
        if isinstance(event, Paced):
            paces.append(event)

    most = 0
    async with fleet.admin() as watch:
        options = Options(target=3, concurrency=5)
        running = asyncio.create_task(migrate_all(fleet.databases, fleet.template, options, listener=listen))
        while not running.done():
            most = max(most, await watch.fetchval(f"SELECT count(*) FROM ({MIGRATORS}) AS m"))
    assert (await running).done == 40
    assert paces[0] == Paced("main", START + 1, None)
    assert START < most <= 5
