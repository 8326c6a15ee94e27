"""Pattern 24, requirement 3: projections of legacy tables, filled in chunks and kept by sync."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import asyncpg
import pytest

from control_plane.adoption import applying, keeping, planning, records, suspension
from control_plane.adoption.building import Progress
from control_plane.adoption.planning import PlanRequest
from control_plane.adoption.work import Work
from control_plane.errors import AdoptionConflict
from control_plane.pools.databases import Databases
from tests.conformance.patterns.adoptions import ACTOR, CUSTOMER, adopt
from tests.support.legacy import Legacy
from tests.support.program import settings_environment


async def test_a_projection_has_keys_versions_and_constraints(databases: Databases, legacy: Legacy) -> None:
    """Requirement 3: what CREATE TABLE AS would not bring."""
    await adopt(databases, legacy)
    async with legacy.owner() as connection:
        constraints = await connection.fetch(
            "SELECT conrelid::regclass::text AS t, pg_get_constraintdef(oid) AS d FROM pg_constraint"
            " WHERE connamespace = 'adoption'::regnamespace AND contype = 'p' ORDER BY 1"
        )
        assert [(row["t"].partition(".")[2], row["d"]) for row in constraints if "tv_" in row["t"]] == [
            ("tv_customers", "PRIMARY KEY (id)"),
            ("tv_lines", "PRIMARY KEY (order_id, \"position\")"),
            ("tv_orders", "PRIMARY KEY (id)"),
        ]  # fmt: skip
        columns = await connection.fetch(
            "SELECT attname, format_type(atttypid, atttypmod) AS type, attnotnull FROM pg_attribute"
            " WHERE attrelid = 'adoption.tv_orders'::regclass AND attnum > 0"
        )
        assert [tuple(row) for row in columns] == [
            ("id", "bigint", True),
            ("customer_id", "uuid", False),
            ("data", "jsonb", True),
            ("version", "bigint", True),
            ("synced_at", "timestamp with time zone", True),
        ]
        same = "SELECT count(*) FROM adoption.v_orders JOIN adoption.tv_orders USING (id, customer_id, data)"
        assert await connection.fetchval(same) == 60


async def test_sync_writes_only_what_differs(databases: Databases, legacy: Legacy) -> None:
    """Requirement 3: then kept by sync; lag and drift are visible."""
    await adopt(databases, legacy)
    assert [each.rows for each in await keeping.check(databases, "shop")] == [0, 0, 0]
    await legacy.execute(
        "UPDATE customers SET email = 'new' WHERE \"order\" = 1; DELETE FROM lines WHERE order_id IN (1, 60);"
        "INSERT INTO orders (customer_id, note) SELECT id, 'late' FROM customers WHERE \"order\" <= 3"
    )
    customers, lines, orders = await keeping.check(databases, "shop")
    assert (customers.stale, customers.samples) == (1, {"stale": [{"id": str(CUSTOMER)}]})
    assert (lines.extra, orders.missing) == (2, 3)
    assert orders.last_sync_at is not None
    walked = await keeping.sync(databases, "shop", chunk=7)
    assert [(each.rows, each.inserted, each.updated, each.deleted) for each in walked] == [
        (30, 0, 1, 0),
        (58, 0, 0, 2),
        (63, 3, 0, 0),
    ]
    assert [each.rows for each in await keeping.check(databases, "shop")] == [0, 0, 0]
    async with legacy.owner() as connection:
        versions = await connection.fetch("SELECT version, count(*) FROM adoption.tv_customers GROUP BY 1 ORDER BY 1")
        assert [tuple(row) for row in versions] == [(1, 29), (2, 1)]
        assert await connection.fetchval("SELECT email FROM adoption.tv_customers WHERE version = 2") == "new"
    again = await keeping.sync(databases, "shop", ["customers"])
    assert [(each.inserted, each.updated, each.deleted) for each in again] == [(0, 0, 0)]


async def test_drift_of_the_projection_itself_is_repaired(databases: Databases, legacy: Legacy) -> None:
    adoption = await adopt(databases, legacy, tables=["orders"])
    await legacy.execute(
        f"SET ROLE {adoption.reader_role}; DELETE FROM adoption.tv_orders WHERE id < 9;"
        "UPDATE adoption.tv_orders SET data = '{}' WHERE id = 20;"
        "INSERT INTO adoption.tv_orders (id, data) VALUES (1000, '{}'), (-5, '{}')"
    )
    (drift,) = await keeping.check(databases, "shop")
    assert (drift.missing, drift.stale, drift.extra) == (8, 1, 2)
    await keeping.sync(databases, "shop", chunk=5)
    assert (await keeping.check(databases, "shop"))[0].rows == 0


async def test_an_application_syncs_a_row_with_its_own_write(databases: Databases, legacy: Legacy) -> None:
    adoption = await adopt(databases, legacy, tables=["orders"])
    async with legacy.owner() as connection:
        async with connection.transaction():
            await connection.execute("UPDATE orders SET note = 'mine' WHERE id = 5")
            await connection.fetchval("SELECT adoption.sync_row('public.orders', '{\"id\": 5}')")
        assert await connection.fetchval("SELECT data ->> 'note' FROM adoption.tv_orders WHERE id = 5") == "mine"
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await connection.fetchval("SELECT adoption.sync_row('public.orders', '{}')")
        with pytest.raises(asyncpg.NoDataFoundError):
            await connection.fetchval("SELECT adoption.sync_row('public.nothing', '{\"id\": 5}')")
    assert adoption.state == "active"


async def test_a_walk_never_puts_an_old_row_over_a_newer_one(databases: Databases, legacy: Legacy) -> None:
    """Requirement 3 under concurrency: the walk waits for whoever syncs a row, and then reads what that one wrote."""
    await adopt(databases, legacy, tables=["orders"])
    async with legacy.owner() as writer, legacy.owner() as watch:
        for round_ in range(3):
            await watch.execute(f"UPDATE orders SET note = 'old {round_}' WHERE id = 5")
            transaction = writer.transaction()
            await transaction.start()
            await writer.execute(f"UPDATE orders SET note = 'new {round_}' WHERE id = 5")
            await writer.fetchval("SELECT adoption.sync_row('public.orders', '{\"id\": 5}')")
            walk = asyncio.create_task(keeping.sync(databases, "shop"))
            while not await watch.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'control-plane adopt'"
                " AND datname = current_database() AND wait_event_type = 'Lock'"
            ):
                assert not walk.done()
                await asyncio.sleep(0.01)
            await transaction.commit()
            await walk
            shown = await watch.fetchval("SELECT data ->> 'note' FROM adoption.tv_orders WHERE id = 5")
            assert shown == f"new {round_}"


async def test_a_killed_fill_goes_on_where_it_was(databases: Databases, legacy: Legacy) -> None:
    """Requirement 3: filled in chunks, resumable after kill -9."""
    await legacy.execute("INSERT INTO orders (customer_id) SELECT id FROM customers, generate_series(1, 100)")
    await planning.plan(databases, PlanRequest("shop", legacy.dsn, tables=["orders"]), actor=ACTOR)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "control_plane", "adopt", "apply", "shop", "--chunk", "5",
        env=settings_environment(databases.settings), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    while (await records.get_adoption(databases, "shop")).tables[0].rows < 50:
        assert process.returncode is None, await process.communicate()
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    killed = (await records.get_adoption(databases, "shop")).tables[0]
    assert (killed.state, killed.rows < 3060) == ("filling", True)
    assert killed.cursor is not None

    steps: list[Progress] = []
    while True:
        try:
            await applying.apply(databases, "shop", actor=ACTOR, chunk=500, listener=steps.append)
            break
        except AdoptionConflict:  # the server has not noticed yet that the other one is gone
            await asyncio.sleep(0.01)
    assert steps[0].rows == killed.rows + 500, "it did not start anew"
    assert (await keeping.check(databases, "shop"))[0].rows == 0
    async with legacy.owner() as connection:
        assert await connection.fetchval("SELECT max(version) FROM adoption.tv_orders") == 1, "no row was written twice"


async def test_every_step_may_be_repeated_after_a_crash(
    databases: Databases, legacy: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Intent is recorded first: whichever record is the last one, the same command finishes the work."""
    record = Work.record
    left = 0

    async def crash(self: Work, row: Any, **values: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("crash")
        await record(self, row, **values)

    before = legacy.dump()
    await planning.plan(databases, PlanRequest("shop", legacy.dsn, tables=["orders"]), actor=ACTOR)
    monkeypatch.setattr(Work, "record", crash)
    crashes = 0
    for verb in (
        lambda: applying.apply(databases, "shop", actor=ACTOR, chunk=25),
        lambda: suspension.suspend(databases, "shop", "orders", actor=ACTOR),
        lambda: suspension.resume(databases, "shop", "orders", actor=ACTOR, chunk=25),
        lambda: applying.uninstall(databases, "shop", actor=ACTOR),
    ):
        step = 0
        while True:
            left = step
            try:
                await verb()
                break
            except RuntimeError:
                crashes, step = crashes + 1, step + 1
    assert crashes >= 8
    assert legacy.dump() == before


async def test_two_commands_at_once_do_not_meet(databases: Databases, legacy: Legacy) -> None:
    await adopt(databases, legacy)
    outcomes = await asyncio.gather(
        *(keeping.sync(databases, "shop", chunk=1) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(outcome, AdoptionConflict) for outcome in outcomes) == 2
