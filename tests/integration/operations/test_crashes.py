"""A process that dies or is paused at any step leaves an operation that another one finishes or undoes."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import func, select, text, update

from control_plane.errors import TenantNotFound
from control_plane.isolation import Isolation, isolation_of
from control_plane.isolation.extensions import install_extensions
from control_plane.isolation.login import role_call
from control_plane.isolation.schema import SchemaIsolation, provisioning_message
from control_plane.operations import attempts
from control_plane.operations.engine import NewTenant, Operations
from control_plane.pools.databases import Databases
from control_plane.registry import operations as records
from control_plane.registry.models import Cluster, Home, Operation, Tenant
from control_plane.templates import Template, Templates
from control_plane.tenants.records import get_tenant
from tests.conftest import SECRET_KEY
from tests.integration.operations import crashing
from tests.integration.operations.conftest import FAST
from tests.support.forked import Forked

WAIT = 60.0


@pytest_asyncio.fixture
async def worker(operations: Operations) -> AsyncIterator[asyncio.Event]:
    """A worker in this process, started when the returned event is set."""
    start, stop = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        await start.wait()
        await operations.run_worker(stop)

    task = asyncio.create_task(run())
    yield start
    start.set()
    stop.set()
    await task


def spawn(databases: Databases, kind: str, isolation: str, step: str, when: str) -> Forked:
    options = {
        "settings": {"home": str(databases.settings.home)},
        "registry": databases.registry_dsn,
        "key": SECRET_KEY,
        "kind": kind,
        "isolation": isolation,
        "slug": "acme",
        "step": step,
        "when": when,
        "timing": dataclasses.asdict(FAST),
    }
    return Forked(crashing.main, options)


async def crash(databases: Databases, kind: str, isolation: str, step: str, when: str) -> None:
    process = spawn(databases, kind, isolation, step, when)
    assert await process.wait() == -signal.SIGKILL


async def settled(databases: Databases) -> Operation:
    """The latest operation, once it is finished."""
    while True:
        async with databases.registry() as session:
            operation = (await session.scalars(select(Operation).order_by(Operation.created_at.desc()))).first()
        if operation is not None and operation.finished_at is not None:
            return operation
        await asyncio.sleep(0.1)


Remains = Callable[[], Awaitable[list[str]]]


@pytest_asyncio.fixture
async def remains(databases: Databases, cluster: Cluster) -> Remains:
    """Names what stands on the server of tenants, beyond shared homes and what stood there before the test."""

    async def names() -> list[str]:
        async with databases.admin(cluster) as connection:
            rows = await connection.fetch(
                """
                SELECT 'tenant ' || slug AS name FROM tenancy.tenants
                UNION ALL
                SELECT 'schema ' || nspname FROM pg_namespace
                WHERE nspname ~ '^t_[0-9a-f]{12}'
                  AND left(nspname, 14) NOT IN (SELECT schema_name FROM tenancy.homes WHERE isolation = 'shared')
                UNION ALL
                SELECT 'role ' || rolname FROM pg_roles
                WHERE rolname LIKE $1 || '_t_%'
                  AND rolname NOT IN (
                      SELECT r.role_name FROM tenancy.home_roles r JOIN tenancy.homes h ON h.id = r.home_id
                      WHERE h.isolation = 'shared')
                UNION ALL
                SELECT 'database ' || datname FROM pg_database WHERE datname ~ '^t_[0-9a-f]{12}$'
                ORDER BY 1
                """,
                cluster.database.removesuffix("_tenants"),
            )
            return [row["name"] for row in rows]

    before = set(await names())

    async def added() -> list[str]:
        return [name for name in await names() if name not in before]

    return added


@pytest.mark.parametrize(
    ("isolation", "step", "when"),
    [
        ("schema", "build", "before"),
        ("schema", "build", "after"),
        ("schema", "activate", "before"),
        ("schema", "activate", "after"),
        ("shared", "build", "after"),
        ("shared", "activate", "after"),
        ("database", "build", "after"),
        ("database", "activate", "after"),
    ],
)
async def test_a_killed_creation_is_finished_by_another_process(
    operations: Operations,
    databases: Databases,
    remains: Remains,
    worker: asyncio.Event,
    isolation: str,
    step: str,
    when: str,
) -> None:
    await crash(databases, "provision", isolation, step, when)
    assert (await get_tenant(databases, "acme")).status == "provisioning"
    worker.set()
    operation = await settled(databases)
    assert (operation.status, operation.attempt, operation.steps) == ("succeeded", 2, ["build", "activate"])
    assert (await get_tenant(databases, "acme")).status == "active"
    assert "tenant acme" in await remains() or isolation == "database"
    deleted, _ = await operations.delete_tenant("acme", actor="ann", wait=WAIT)
    assert deleted.status == "deleted"
    assert await remains() == []


@pytest.mark.parametrize("isolation", ["shared", "schema", "database"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_creation_that_was_killed_while_being_undone_is_undone_by_another_process(
    databases: Databases, remains: Remains, worker: asyncio.Event, isolation: str, when: str
) -> None:
    await crash(databases, "provision", isolation, "abandon", when)
    worker.set()
    operation = await settled(databases)
    assert operation.status == "failed"
    assert operation.error is not None
    assert operation.error["code"] == "provisioning_failed"
    with pytest.raises(TenantNotFound):
        await get_tenant(databases, "acme")
    assert await remains() == []


@pytest.mark.parametrize(
    ("isolation", "step", "when"),
    [
        ("schema", "close", "before"),
        ("schema", "fence", "after"),
        ("schema", "drop", "before"),
        ("schema", "drop", "after"),
        ("shared", "drop", "after"),
        ("database", "drop", "after"),
    ],
)
async def test_a_killed_deletion_is_finished_by_another_process(
    operations: Operations,
    databases: Databases,
    remains: Remains,
    worker: asyncio.Event,
    isolation: str,
    step: str,
    when: str,
) -> None:
    await operations.create_tenant(NewTenant("acme", "Acme", isolation), actor="ann", wait=WAIT)
    await crash(databases, "delete", isolation, step, when)
    assert (await get_tenant(databases, "acme")).status == "deleting"
    worker.set()
    operation = await settled(databases)
    assert (operation.kind, operation.status) == ("delete", "succeeded")
    assert await remains() == []


@pytest.mark.parametrize("isolation", ["shared", "schema", "database"])
async def test_a_paused_process_that_was_replaced_writes_nothing_more(
    databases: Databases, cluster: Cluster, worker: asyncio.Event, isolation: str
) -> None:
    process = spawn(databases, "provision", isolation, "build", "stop after")
    worker.set()
    operation = await settled(databases)
    assert (operation.status, operation.attempt) == ("succeeded", 2)
    before = await get_tenant(databases, "acme")
    os.kill(process.pid, signal.SIGCONT)
    assert await process.wait() == 0
    assert await get_tenant(databases, "acme") == before
    async with databases.registry() as session:
        after = await session.get_one(Operation, operation.id)
        assert (after.attempt, after.steps, after.updated_at) == (2, ["build", "activate"], operation.updated_at)


@pytest.mark.parametrize("isolation", ["shared", "schema", "database"])
async def test_a_paused_process_that_builds_after_it_was_undone_undoes_it_again(
    databases: Databases,
    remains: Remains,
    worker: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
    isolation: str,
) -> None:
    process = spawn(databases, "provision", isolation, "build", "stop before")

    async def fail(*_: object) -> int:
        raise RuntimeError("this home cannot be built")

    monkeypatch.setattr(type(isolation_of(isolation)), "build", fail)
    worker.set()
    assert (await settled(databases)).status == "failed"
    os.kill(process.pid, signal.SIGCONT)
    assert await process.wait() == 1  # its caller is told that the operation failed
    assert await remains() == []


async def test_a_step_commits_nothing_once_its_attempt_was_replaced(
    operations: Operations, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = SchemaIsolation.build

    async def lose_meanwhile(*arguments: object) -> int:
        reached = await build(*arguments)  # type: ignore[arg-type]
        async with databases.registry.begin() as session:
            await session.execute(update(Operation).values(attempt=Operation.attempt + 1))
        return reached

    monkeypatch.setattr(SchemaIsolation, "build", lose_meanwhile)
    tenant, operation = await operations.create_tenant(NewTenant("acme", "Acme", "schema"), actor="ann", wait=1)
    assert (tenant.status, operation.status) == ("provisioning", "running")
    async with databases.registry() as session:
        assert (await session.get_one(Operation, operation.id)).steps == []
        assert await session.scalar(select(func.count()).select_from(Home).where(Home.ready)) == 0
    async with databases.registry.begin() as session:  # lets the swept-up attempt see its end
        await session.execute(update(Operation).values(status="failed", finished_at=func.now()))
        await session.execute(update(Tenant).values(status="deleted", home_id=None))


@pytest.mark.parametrize("isolation", ["schema", "database"])
async def test_an_attempt_that_builds_while_a_slow_one_is_still_at_it_finds_its_work(
    operations: Operations,
    databases: Databases,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    isolation: str,
) -> None:
    mode = type(isolation_of(isolation))
    build, calls = mode.build, 0

    async def build_beside(
        self: Isolation, _: Databases, __: Cluster, home: Home, tenant: Tenant, template: Template, version: int
    ) -> int:
        nonlocal calls
        calls += 1
        arguments = (self, databases, cluster, home, tenant, template, version)
        if calls > 1:
            return await build(*arguments)
        if isolation == "schema":
            work = provisioning_message(databases, home, tenant, template, version)
        else:
            work = role_call(home, databases.box, databases.settings.statement_timeout, ["cp_request"])
        async with databases.admin(cluster) as slow, databases.admin(cluster) as looking:
            await install_extensions(slow, template)
            async with slow.transaction():
                await slow.execute(work)
                beside = asyncio.create_task(build(*arguments))
                while not await looking.fetchval(
                    "SELECT bool_or($1 = ANY (pg_blocking_pids(pid))) FROM pg_stat_activity", slow.get_server_pid()
                ):
                    await asyncio.sleep(0.01)
        return await beside

    monkeypatch.setattr(mode, "build", build_beside)
    tenant, operation = await operations.create_tenant(NewTenant("acme", "Acme", isolation), actor="ann", wait=WAIT)
    assert (tenant.status, operation.status) == ("active", "succeeded")
    assert calls == (2 if isolation == "database" else 1)


async def test_homes_that_are_built_at_the_same_time_do_not_wait_for_each_other(
    operations: Operations, databases: Databases, cluster: Cluster, templates: Templates
) -> None:
    template, tenant = templates["reference"], Tenant(id=uuid4(), slug="slow")
    home = SchemaIsolation().new_home(uuid4(), cluster, template.name, databases.box)
    before_the_role, _, _ = provisioning_message(databases, home, tenant, template, 1).partition(
        "SELECT tenancy.put_request_role"
    )
    assert "CREATE TABLE" in before_the_role
    async with databases.admin(cluster) as connection, connection.transaction():
        await connection.execute(before_the_role)
        await operations.create_tenant(NewTenant("acme", "Acme", "schema"), actor="ann", wait=WAIT)


async def test_a_process_that_is_paused_in_its_heartbeat_keeps_nothing_from_its_successor(
    operations: Operations, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, operation = await operations.create_tenant(NewTenant("acme", "Acme", "schema"), actor="ann", wait=WAIT)
    holder, beat, paused = attempts.Attempts(databases, FAST), records.beat, asyncio.Event()
    go_on = asyncio.Event()

    async def pause_after(*arguments: Any) -> None:
        await beat(*arguments)
        paused.set()
        await go_on.wait()

    async with databases.registry.begin() as session:
        await session.execute(update(Operation).values(status="running", finished_at=None))
    monkeypatch.setattr(records, "beat", pause_after)
    with holder.holding(operation.id, 1):
        await paused.wait()
        async with databases.registry.begin() as session:
            await session.execute(select(Operation).with_for_update(nowait=True))
        go_on.set()
    await holder.aclose()


async def test_the_registry_ends_transactions_that_nobody_goes_on_with(databases: Databases) -> None:
    async with databases.registry() as session:
        assert await session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"


async def test_a_living_holder_is_not_replaced_and_a_silent_one_is(
    operations: Operations, databases: Databases
) -> None:
    _, operation = await operations.create_tenant(NewTenant("acme", "Acme", "schema"), actor="ann", wait=WAIT)
    other = attempts.Attempts(databases, FAST)

    async def heard_of(seconds_ago: float) -> None:
        ago = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds_ago)
        async with databases.registry.begin() as session:
            await session.execute(update(Operation).values(status="running", finished_at=None, heartbeat_at=ago))

    await heard_of(0)
    assert await other.claim(operation.id) is None
    await heard_of(FAST.silence + 1)
    claimed = await other.claim(operation.id)
    assert claimed is not None
    assert claimed.attempt == 2
    assert await other.claim(operation.id) is None


async def test_an_open_operation_without_a_job_gets_one(
    operations: Operations, databases: Databases, worker: asyncio.Event
) -> None:
    await crash(databases, "provision", "schema", "build", "before")
    async with databases.registry.begin() as session:
        await session.execute(text("DELETE FROM procrastinate_jobs"))
    worker.set()
    assert (await settled(databases)).status == "succeeded"


async def test_the_worker_survives_that_the_registry_drops_its_connections(
    operations: Operations, databases: Databases, worker: asyncio.Event
) -> None:
    worker.set()
    async with databases.registry() as session:
        while not await session.scalar(text("SELECT count(*) FROM procrastinate_workers")):
            await asyncio.sleep(0.05)
        await session.rollback()
        await session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'control-plane worker' AND datname = current_database()"
            )
        )
    await crash(databases, "provision", "schema", "build", "before")
    assert (await settled(databases)).status == "succeeded"


async def test_jobs_of_finished_operations_leave_the_queue(
    operations: Operations, databases: Databases, worker: asyncio.Event
) -> None:
    await operations.create_tenant(NewTenant("acme", "Acme", "schema"), actor="ann", wait=WAIT)
    worker.set()
    async with databases.registry() as session:
        while await session.scalar(text("SELECT count(*) FROM procrastinate_jobs")):
            await session.rollback()
            await asyncio.sleep(0.1)
