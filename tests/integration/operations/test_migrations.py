"""Runs that workers carry out: handed on when a worker stops, and closed with a reason when they cannot go on."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text, update

from control_plane.errors import RunInProgress
from control_plane.migrator import Options, Policy, migrate_all, operators
from control_plane.migrator.operators import RunRecord
from control_plane.migrator.policy import WavePolicy
from control_plane.operations.engine import Operations
from control_plane.pools.databases import Databases
from control_plane.registry import runs, template_versions
from control_plane.registry.models import Cluster, Tenant
from control_plane.settings import Settings
from control_plane.templates import Templates
from tests.conftest import SECRET_KEY
from tests.integration.migrator.runs import WAITING, holding, until
from tests.integration.operations.conftest import FAST
from tests.integration.operations.dying_worker import MOMENTS
from tests.support.fleet import Fleet
from tests.support.templates import with_first_versions

ONE_WAVE = Policy(waves=WavePolicy(canaries=0, shares=(), largest=0))
HELD = 'LOCK TABLE "{schema}".tb_user IN ACCESS SHARE MODE'


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    changes = {"lock_timeout": 30.0, "migrate_concurrency": 1}
    return with_first_versions(settings.model_copy(update=changes), tmp_path / "templates")


@pytest.fixture
def fleet(databases: Databases, cluster: Cluster, installation_id: UUID, templates: Templates) -> Fleet:
    return Fleet(databases, cluster, installation_id, templates["reference"])


@asynccontextmanager
async def working(operations: Operations) -> AsyncIterator[asyncio.Event]:
    """A worker; it stops when the event is set, or at the end."""
    stop = asyncio.Event()
    worker = asyncio.create_task(operations.run_worker(stop))
    try:
        yield stop
    finally:
        stop.set()
        await worker


async def start(operations: Operations) -> RunRecord:
    return await operations.migrations.start("reference", Options(policy=ONE_WAVE, actor="tests"))


async def reached(fleet: Fleet, run: RunRecord, *statuses: str) -> RunRecord:
    while (found := await operators.show(fleet.databases, str(run.id))).status not in statuses:
        await asyncio.sleep(0.02)
    return found


@pytest.mark.parametrize("mode", ["shared", "schema", "database"])
async def test_a_worker_that_stops_finishes_the_home_in_flight_and_leaves_the_run_to_the_next(
    operations: Operations, fleet: Fleet, mode: str
) -> None:
    first = await fleet.add("acme", mode)
    others = [await fleet.add(f"other-{number}", "schema") for number in range(3)]
    held = first if mode != "shared" else others[0]
    async with fleet.databases.registry.begin() as session:  # so that it goes first
        await session.execute(update(Tenant).where(Tenant.home_id == held.id).values(labels={"ring": "internal"}))
    run = await start(operations)
    async with working(operations) as stop, fleet.admin(held) as watch:
        async with holding(fleet, held, HELD):
            await until(watch, f"SELECT EXISTS ({WAITING})")
            stop.set()
        await until(watch, "SELECT version = 3 FROM tenancy.homes WHERE id = $1", held.id)
    left = await operators.show(fleet.databases, str(run.id))
    assert (left.status, left.durable, left.runner) == ("running", True, False)
    assert (left.finished_at, left.reason) == (None, None)
    assert left.done == 1
    with pytest.raises(RunInProgress, match=str(run.id)):
        await start(operations)
    async with working(Operations(fleet.databases, Templates({"reference": fleet.template}), timing=FAST)):
        done = await reached(fleet, run, "done")
    assert (done.planned, done.done, done.failed) == (4, 4, 0)
    assert [await fleet.version(home) for home in (first, *others)] == [3, 3, 3, 3]


async def test_a_run_that_lost_its_job_gets_another(operations: Operations, fleet: Fleet) -> None:
    await fleet.add("acme")
    run = await start(operations)
    async with fleet.databases.registry.begin() as session:
        await session.execute(text("DELETE FROM procrastinate_jobs"))
    async with working(operations):
        assert (await reached(fleet, run, "done")).done == 1


async def test_a_run_that_somebody_else_works_on_is_left_to_him(operations: Operations, fleet: Fleet) -> None:
    home = await fleet.add("acme")
    run = await start(operations)
    async with fleet.databases.engine.connect() as pooled:
        holder = await pooled.execution_options(isolation_level="AUTOCOMMIT")
        await runs.hold_run(holder, run.id)
        async with working(operations):
            while not await _tried(fleet):
                await asyncio.sleep(0.02)
            assert await fleet.version(home) == 1
            await runs.let_go_run(holder, run.id)
            await reached(fleet, run, "done")
    assert await fleet.version(home) == 3


async def _tried(fleet: Fleet) -> bool:
    async with fleet.databases.registry() as session:
        attempts = text("SELECT max(attempts) > 0 FROM procrastinate_jobs WHERE queue_name = 'migrations'")
        return bool((await session.execute(attempts)).scalar_one())


async def test_a_run_that_cannot_go_on_says_why(operations: Operations, fleet: Fleet) -> None:
    home = await fleet.add("acme")
    run = await start(operations)
    with (fleet.databases.settings.templates / "reference/versions/0002_profiles/expand.sql").open("a") as file:
        file.write("-- one more line\n")
    async with fleet.databases.registry.begin() as session:
        await template_versions.release(session, fleet.template, 2)
    changed = Templates.load(fleet.databases.settings.templates)
    async with working(Operations(fleet.databases, changed, timing=FAST)):
        halted = await reached(fleet, run, "halted")
    assert halted.reason == "Template 'reference': released version 2 was changed afterwards."
    assert await fleet.version(home) == 1


async def test_a_run_of_the_command_line_is_no_worker_s_business(operations: Operations, fleet: Fleet) -> None:
    for number in range(3):
        await fleet.add(f"acme-{number}")
    stop = asyncio.Event()
    stop.set()
    await migrate_all(fleet.databases, fleet.template, Options(policy=ONE_WAVE), stop=stop)
    halted = await operators.show(fleet.databases, "last")
    async with working(operations):
        resumed, options = await operators.go_on(fleet.databases, "last", actor="tests")
        assert (resumed.status, resumed.durable) == ("running", False)
        assert options is not None
        await asyncio.sleep(2 * FAST.repair)  # nobody takes it
        shown = await operators.show(fleet.databases, "last")
        assert (shown.id, shown.done, shown.runner) == (halted.id, 0, False)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_worker_that_is_killed_at_any_moment_leaves_a_run_that_the_next_one_ends(
    operations: Operations, fleet: Fleet, moment: str
) -> None:
    homes = [await fleet.add(f"acme-{mode}", mode) for mode in ("schema", "database", "shared")]
    run = await start(operations)
    options = {
        "settings": {"home": str(fleet.databases.settings.home), "templates": str(fleet.databases.settings.templates)},
        "registry": fleet.databases.registry_dsn,
        "key": SECRET_KEY,
        "timing": dataclasses.asdict(FAST),
        "moment": moment,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.operations.dying_worker", json.dumps(options)
    )
    assert await process.wait() == -signal.SIGKILL
    left = await operators.show(fleet.databases, str(run.id))
    assert left.status in ("queued", "running")
    async with working(operations):
        done = await reached(fleet, run, "done")
    assert (done.id, done.planned, done.done, done.failed, done.durable) == (run.id, 3, 3, 0, True)
    assert [await fleet.version(home) for home in homes] == [3, 3, 3]
    assert [await fleet.copied_version(home) for home in homes] == [3, 3, 3]
    async with fleet.databases.registry() as session:
        assert (await session.scalars(text("SELECT status FROM run_homes"))).all() == ["done"] * 3
