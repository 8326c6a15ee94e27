"""Pattern 24, requirement 4: migrations of the legacy database go on beside an adoption."""

from __future__ import annotations

import json

import asyncpg
import pytest

from control_plane.adoption import applying, keeping, planning, records, suspension
from control_plane.adoption.planning import PlanRequest
from control_plane.errors import AdoptionConflict, AdoptionRefused
from control_plane.pools.databases import Databases
from tests.conformance.patterns.adoptions import ACTOR, CUSTOMER, adopt
from tests.support.legacy import Legacy


async def test_preflight_lists_what_stands_on_a_table(databases: Databases, legacy: Legacy) -> None:
    """Requirement 4: a pre-flight lists dependent views, ours and others'."""
    await adopt(databases, legacy)
    await legacy.execute(
        "CREATE VIEW notes AS SELECT note FROM orders; CREATE MATERIALIZED VIEW notes_kept AS SELECT * FROM notes;"
        "CREATE FUNCTION last_order() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT max(id) FROM orders; END"
    )
    found = await suspension.preflight(databases, "shop", "orders")
    assert {(each.name, each.kind, each.depth, each.suspended) for each in found} == {
        ("adoption.v_orders", "view", 1, True),
        ("public.notes", "view", 1, False),
        ("public.notes_kept", "materialized view", 2, False),
        ("public.last_order()", "function", 1, False),
    }
    columns = {each.name: each.columns for each in found}
    assert columns["public.notes"] == ["note"]
    assert columns["public.notes_kept"] == []


async def test_suspending_lets_a_legacy_migration_run(databases: Databases, legacy: Legacy) -> None:
    """Requirement 4: suspend drops the dependent views, resume recreates them for what the table has become."""
    await adopt(databases, legacy)
    migration = (
        "ALTER TABLE customers DROP COLUMN field_01; ALTER TABLE customers RENAME field_02 TO renamed;"
        "ALTER TABLE customers ADD COLUMN points integer NOT NULL DEFAULT 7, ADD COLUMN reset_token text;"
        "ALTER TABLE customers ALTER COLUMN email TYPE varchar(100)"
    )
    with pytest.raises(asyncpg.DependentObjectsStillExistError):
        await legacy.execute(migration)
    assert await suspension.suspend(databases, "shop", "customers", actor=ACTOR) == []
    (drift, *_) = await keeping.check(databases, "shop")
    assert drift.state == "suspended"
    assert [each.table for each in await keeping.sync(databases, "shop")] == ["public.lines", "public.orders"]
    await legacy.execute(migration)
    async with legacy.owner() as connection:
        assert await connection.fetchval("SELECT count(*) FROM adoption.tv_customers") == 30, "still readable"
        key = json.dumps({"id": str(CUSTOMER)})
        synced = await connection.fetchval("SELECT adoption.sync_row('public.customers', $1)", key)
        assert synced is None, "an application that syncs its own writes is not stopped"
    assert await suspension.resume(databases, "shop", "customers", actor=ACTOR) == ["password_hash", "reset_token"]
    async with legacy.owner() as connection:
        document = json.loads(
            await connection.fetchval("SELECT data FROM adoption.tv_customers WHERE id = $1", CUSTOMER)
        )
    assert document["points"] == 7
    assert "renamed" in document
    assert not {"field_01", "field_02", "reset_token"} & set(document)
    assert [each.rows for each in await keeping.check(databases, "shop")] == [0, 0, 0]


async def test_suspend_does_not_drop_what_others_built_on_our_view(databases: Databases, legacy: Legacy) -> None:
    await adopt(databases, legacy)
    await legacy.execute("CREATE VIEW mine AS SELECT id FROM adoption.v_orders")
    with pytest.raises(AdoptionRefused, match="stands on"):
        await suspension.suspend(databases, "shop", "orders", actor=ACTOR)
    assert [each.state for each in (await records.get_adoption(databases, "shop")).tables] == ["active"] * 3
    await legacy.execute("DROP VIEW mine")


async def test_resume_refuses_a_table_that_has_lost_its_key(databases: Databases, legacy: Legacy) -> None:
    await adopt(databases, legacy)
    await suspension.suspend(databases, "shop", "lines", actor=ACTOR)
    await legacy.execute("ALTER TABLE lines DROP CONSTRAINT lines_pkey; INSERT INTO lines SELECT * FROM lines LIMIT 1")
    with pytest.raises(AdoptionRefused) as refused:
        await suspension.resume(databases, "shop", "lines", actor=ACTOR)
    assert "rows share a key: 1, 1 (2 rows)" in refused.value.errors[0]["problem"]


async def test_a_plan_that_time_has_overtaken_is_not_applied(databases: Databases, legacy: Legacy) -> None:
    await planning.plan(databases, PlanRequest("shop", legacy.dsn), actor=ACTOR)
    await legacy.execute("ALTER TABLE orders ADD COLUMN total numeric")
    with pytest.raises(AdoptionConflict, match=r"public\.orders has changed"):
        await applying.apply(databases, "shop", actor=ACTOR)
