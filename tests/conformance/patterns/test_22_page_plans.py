"""Pattern 22: a deep page costs what the first one costs, for every sort that is declared."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from control_plane.api.query import plain_listing
from tests.conformance.conftest import Ground
from tests.conformance.patterns.pages import ORIGIN, read
from tests.conformance.patterns.plans import Plan, explain
from tests.conformance.patterns.undone import undone
from tests.conformance.world import Member, World

STATEMENT = """
    SELECT tenancy.page_statement(view_name, $2::text[], $3, '', true, 0)
    FROM tenancy.find_collection($1)
"""

SAMPLES = {
    "uuid": str(UUID(int=5)),
    "text": "m",
    "timestamp with time zone": ORIGIN,
    "date": "2026-03-01",
    "integer": "5",
    "bigint": "5",
    "boolean": "true",
}  # the types whose comparison is leakproof


async def plan_of(
    connection: asyncpg.Connection, member: Member, collection: str, keys: list[str], rising: bool, values: list[str]
) -> Plan:
    statement = await connection.fetchval(STATEMENT, collection, keys, rising)
    return await explain(connection, f"{statement} LIMIT 21", [member.id, values])


async def test_a_deep_page_reads_its_own_rows_only(ground: Ground) -> None:
    """Requirements 2 and 7, check 22.6: 200 000 rows, in shared tables, as the role of requests."""
    world = await ground.world("shared")
    async with world.owner(world.a) as connection:
        await connection.execute(
            """
            INSERT INTO tb_project (tenant_id, id, name, created_at)
            SELECT $1, ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'p' || lpad((n / 7)::text, 6, '0'),
                   $2::text::timestamptz + n / 7 * interval '1 second'
            FROM generate_series(1, 200000) AS n
            """,
            world.a.id,
            ORIGIN,
        )
        await connection.execute("ANALYZE tb_project")
    deep = "00000000-0000-0000-0000-000000150000"
    async with undone(world, world.a) as connection:
        # `page_statement` is what read_page() runs.
        moment = await connection.fetchval("SELECT created_at::text FROM tb_project WHERE id = $1", UUID(deep))
        for keys, values in (
            (["created_at", "id"], [moment, deep]),
            (["name", "id"], ["p021428", deep]),
            (["id"], [deep]),
        ):
            for rising in (True, False):
                plan = await plan_of(connection, world.a, "2.projects", keys, rising, values)
                assert plan.rows_read("tb_project") <= 21, plan
                conditions = plan.index_conditions()
                compared = "ROW(" if len(keys) > 1 else "(id "
                assert any("tenant_id = " in found and compared in found for found in conditions), plan
                assert not {"Sort", "Incremental Sort", "Seq Scan"} & set(plan.types), plan

        page = await read(connection, sort="created_at", limit=100)
        for _ in range(3):
            page = await read(connection, sort="created_at", limit=100, cursor=page["page"]["next"])
        expected = await connection.fetch("SELECT id FROM tb_project ORDER BY created_at, id OFFSET 300 LIMIT 100")
        assert [item["id"] for item in page["items"]] == [str(row["id"]) for row in expected]


async def test_each_declared_sort_is_a_range_of_an_index(shared_world: World) -> None:
    """Requirement 2 and 7: for every collection and every sort, in both directions, under row-level security."""
    world = shared_world
    faults = []
    async with undone(world, world.a) as connection:
        # The tables are small: only what the planner could not avoid is a fault.
        await connection.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
        )
        for name, resource in world.template.manifest.resources.items():
            api = max(resource.api or world.template.manifest.api)
            collection = f"{api}.{name}"
            sorts = dict.fromkeys((*resource.sorts, resource.key[0]))
            if resource.order[0].removeprefix("-") not in sorts:
                faults.append(f"{collection} has an order that is no sort: its first page cannot be read without one")
            for sort in sorts:
                keys = [sort, *(column for column in resource.key if column != sort)]
                types = [
                    await connection.fetchval(
                        "SELECT tenancy.column_type(view_name, $2) FROM tenancy.find_collection($1)", collection, column
                    )
                    for column in keys
                ]
                if unfit := set(types) - SAMPLES.keys():
                    faults.append(f"{collection} by {sort}: no index serves {unfit} under row-level security")
                    continue
                for rising in (True, False):
                    plan = await plan_of(
                        connection, world.a, collection, keys, rising, [SAMPLES[type_] for type_ in types]
                    )
                    compared = "ROW(" if len(keys) > 1 else f"{sort} "
                    if {"Sort", "Incremental Sort"} & set(plan.types):
                        faults.append(f"{collection} by {sort}: sorts")
                    if not any("tenant_id = " in found and compared in found for found in plan.index_conditions()):
                        faults.append(f"{collection} by {sort}: the cursor is no condition of an index")
    assert not faults, "\n".join(sorted(set(faults)))


async def test_every_list_has_pages_as_it_is(shared_world: World) -> None:
    """The order that a list has by itself goes one way, and is total."""
    template = shared_world.template
    for name, declared in template.manifest.resources.items():
        for api in declared.api or template.manifest.api:
            resource = template.resource(name, api_version=api, pattern_version=template.latest)
            shape = plain_listing(resource).shape
            assert shape.cursors, name
            assert set(resource.key) <= {sort.column for sort in shape.order}, name


async def test_no_declared_sort_can_be_null(shared_world: World) -> None:
    """Requirement 2: a row whose sort value is null would be on no page. The planner proves that none is."""
    world = shared_world
    faults = []
    async with world.owner(world.a) as connection:
        if await connection.fetchval("SELECT current_setting('server_version_num')::integer") < 170000:
            pytest.skip("the planner draws no conclusions from NOT NULL before PostgreSQL 17")
        for name, resource in world.template.manifest.resources.items():
            api = max(resource.api or world.template.manifest.api)
            order = (column.removeprefix("-") for column in resource.order)
            for column in dict.fromkeys((*resource.sorts, *resource.key, *order)):
                found = await connection.fetchval(
                    f'EXPLAIN (FORMAT JSON) SELECT FROM "{world.a.schema}__api_v{api}".{name} WHERE {column} IS NULL'
                )
                if not _reads_nothing(json.loads(found)[0]["Plan"]):
                    faults.append(f"{api}.{name} by {column}")
    assert not faults, f"these may be null: {faults}"


def _reads_nothing(plan: dict[str, Any]) -> bool:
    """Whether the plan knows that there is no such row: nothing below it is executed."""
    if plan.get("One-Time Filter") == "false":
        return True
    children = [child for child in plan.get("Plans", ()) if child.get("Parent Relationship") in ("Outer", "Inner",
                "Member", "Subquery")]  # fmt: skip
    return bool(children) and all(_reads_nothing(child) for child in children)
