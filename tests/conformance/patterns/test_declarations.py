"""template.toml says what stands in the database: every declared thing is held against the latest version."""

from __future__ import annotations

import json
import re
from typing import Any

import asyncpg
import pytest

from control_plane.settings import shipped
from control_plane.templates import Templates
from tests.conformance.world import World

TEMPLATE = Templates.load(shipped("tenant_templates"))["reference"]
MANIFEST = TEMPLATE.manifest
APIS = TEMPLATE.api_versions(TEMPLATE.latest)

# The one JSON literal of a base function: the second argument of its check of the input.
LITERAL = re.compile(r"tenancy\.input_problems\(\s*\w+\s*,\s*'((?:[^']|'')*)'")

COLUMNS = """
SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

# Everything that a view or a function reads, through views and through functions whose bodies the server has parsed.
READS = """
WITH RECURSIVE reads (classid, objid) AS (
    SELECT 'pg_class'::regclass::oid, to_regclass($1)::oid
    UNION
    SELECT 'pg_proc'::regclass::oid, to_regproc($1)::oid
    UNION
    SELECT d.refclassid, d.refobjid
    FROM reads r
    LEFT JOIN pg_rewrite w ON r.classid = 'pg_class'::regclass AND w.ev_class = r.objid
    JOIN pg_depend d ON (d.classid, d.objid) IN (('pg_rewrite'::regclass, w.oid), ('pg_proc'::regclass, r.objid))
    WHERE d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass)
      AND (w.oid IS NOT NULL OR r.classid = 'pg_proc'::regclass)
)
"""
TABLES = f"""{READS}
SELECT c.relname FROM reads r JOIN pg_class c ON r.classid = 'pg_class'::regclass AND c.oid = r.objid
WHERE c.relkind IN ('r', 'p') ORDER BY c.relname
"""
OPAQUE = f"""{READS}
SELECT p.proname FROM reads r JOIN pg_proc p ON r.classid = 'pg_proc'::regclass AND p.oid = r.objid
WHERE p.prosqlbody IS NULL AND p.pronamespace <> 'pg_catalog'::regnamespace
"""

FUNCTION = """
SELECT p.prosrc, p.provolatile, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = $1 AND p.proname = $2
"""


def served(name: str, apis: tuple[int, ...] | None) -> list[tuple[str, int]]:
    return [(name, api) for api in APIS if apis is None or api in apis]


RESOURCES = [each for name, resource in MANIFEST.resources.items() for each in served(name, resource.api)]
FUNCTIONS = [each for name, function in MANIFEST.functions.items() for each in served(name, function.api)]


async def columns(connection: asyncpg.Connection, schema: str, relation: str) -> dict[str, str]:
    """The columns in their order, each with its type as the manifest calls it."""
    found = await connection.fetch(COLUMNS, f'"{schema}"."{relation}"')
    return {name: type_.replace("timestamp with time zone", "timestamptz") for name, type_ in found}


async def only_function(connection: asyncpg.Connection, schema: str, name: str) -> asyncpg.Record:
    found = await connection.fetch(FUNCTION, schema, name)
    assert len(found) == 1, f"{schema}.{name}: {len(found)} functions"
    return found[0]


@pytest.mark.parametrize(("name", "api"), RESOURCES)
async def test_a_resource_is_a_view_with_the_declared_columns(shared_world: World, name: str, api: int) -> None:
    declared = MANIFEST.resources[name]
    async with shared_world.admin(shared_world.a) as connection:
        present = await columns(connection, f"{shared_world.a.schema}__api_v{api}", name)
    assert next(iter(present)) == "tenant_id"
    assert "data" in present
    # Also what it is sorted, filtered and keyed by: the manifest admits declared columns only. The types are those that
    # the values of filters are cast to.
    assert not {"tenant_id", "data"} & set(declared.columns)
    assert declared.columns.items() <= present.items()


async def test_every_view_of_an_api_version_is_declared(shared_world: World) -> None:
    async with shared_world.admin(shared_world.a) as connection:
        for api in APIS:
            views = await connection.fetch(
                "SELECT viewname FROM pg_views WHERE schemaname = $1", f"{shared_world.a.schema}__api_v{api}"
            )
            assert {view for (view,) in views} == {name for name, version in RESOURCES if version == api}


@pytest.mark.parametrize(("name", "api"), FUNCTIONS)
async def test_a_function_takes_and_answers_a_document(shared_world: World, name: str, api: int) -> None:
    async with shared_world.admin(shared_world.a) as connection:
        found = await only_function(connection, f"{shared_world.a.schema}__api_v{api}", name)
    assert (found["arguments"], found["result"]) == ("input jsonb", "jsonb")
    assert (found["provolatile"] == b"s") == MANIFEST.functions[name].read_only


@pytest.mark.parametrize("name", [name for name in MANIFEST.functions if name not in MANIFEST.cached_queries])
async def test_the_input_is_checked_against_the_declared_rules(shared_world: World, name: str) -> None:
    """The literal in the base function equals `[functions.….input]`, so that what is published is what is checked."""
    if name in MANIFEST.cached_queries:  # whose parameters the catalogue of queries checks
        assert MANIFEST.functions[name].input == MANIFEST.cached_queries[name].parameters
        return
    async with shared_world.admin(shared_world.a) as connection:
        base = await only_function(connection, shared_world.a.schema, f"fn_{name}")
    literals = LITERAL.findall(base["prosrc"])
    assert len(literals) == 1, f"fn_{name} checks its input {len(literals)} times"
    declared = {
        field: rule.model_dump(mode="json", exclude_none=True) for field, rule in MANIFEST.functions[name].input.items()
    }
    assert json.loads(literals[0].replace("''", "'")) == declared


async def test_every_helper_exists(shared_world: World) -> None:
    async with shared_world.admin(shared_world.a) as connection:
        for name in MANIFEST.helpers:
            await only_function(connection, shared_world.a.schema, name)


@pytest.mark.parametrize("version", range(1, TEMPLATE.latest + 1))
def test_a_smoke_file_calls_whatever_its_version_brings(version: int) -> None:
    """Each function and each view of it, by name: that PL/pgSQL was created proves nothing about it."""
    files = TEMPLATE.version(version)
    smoke = files.smoke or ""
    views = set(re.findall(r"^CREATE VIEW (\w+)", "\n".join(part.sql for part in files.parts()), re.MULTILINE))
    brought = {name for name, function in MANIFEST.functions.items() if function.since == version}
    assert {name for name in brought if f"{name}(" not in smoke} == set()
    assert {name for name in views if not re.search(rf"\b{name}\b", smoke)} == set()


@pytest.mark.parametrize("name", MANIFEST.projections)
async def test_a_projection_is_what_it_is_declared_to_be(shared_world: World, name: str) -> None:
    declared = MANIFEST.projections[name]
    schema = shared_world.a.schema
    async with shared_world.admin(shared_world.a) as connection:
        assert {"tenant_id", "id", "data", "version", "synced_at"} <= set(await columns(connection, schema, name))
        assert {"tenant_id", "id", "data"} <= set(await columns(connection, schema, declared.definition))
        assert {"tenant_id", "id"} <= set(await columns(connection, schema, declared.source))
        sync = await only_function(connection, schema, declared.sync)
        assert (sync["arguments"], sync["result"]) == ("keys uuid[]", "TABLE(key uuid, outcome text)")
        written_by_functions = await connection.fetchval(
            "SELECT NOT private FROM tenancy.function_tables WHERE home_id = $1 AND table_name = $2",
            shared_world.a.home.id,
            name,
        )
        assert written_by_functions


@pytest.mark.parametrize("name", MANIFEST.projections)
async def test_a_projection_follows_the_tables_that_it_reads(shared_world: World, name: str) -> None:
    declared = MANIFEST.projections[name]
    async with shared_world.admin(shared_world.a) as connection:
        definition = f'"{shared_world.a.schema}"."{declared.definition}"'
        tables = await connection.fetch(TABLES, definition)
        opaque = await connection.fetch(OPAQUE, definition)
    assert [table for (table,) in tables] == sorted(declared.follows)
    assert opaque == [], "a function whose body is text may read anything"


@pytest.mark.parametrize("name", MANIFEST.cached_queries)
async def test_a_cached_query_reads_its_sources_and_nothing_else(shared_world: World, name: str) -> None:
    """What it reads besides could change without anybody noticing; and what could write is not called at all."""
    declared = MANIFEST.cached_queries[name]
    function = f'"{shared_world.a.schema}"."{declared.function}"'
    async with shared_world.admin(shared_world.a) as connection:
        tables = await connection.fetch(TABLES, function)
        opaque = await connection.fetch(OPAQUE, function)
        kind = await connection.fetchval("SELECT provolatile FROM pg_proc WHERE oid = to_regproc($1)", function)
        triggers = {
            row["tgrelid"]
            for row in await connection.fetch(
                "SELECT tgrelid::regclass::text AS tgrelid FROM pg_trigger WHERE tgname = 'change_of_update'"
            )
        }
    assert [table for (table,) in tables] == sorted(declared.sources)
    assert opaque == [], "a function whose body is text may read anything"
    assert kind in (b"s", b"i")
    assert set(declared.sources) <= set(MANIFEST.projections)
    assert {f"{shared_world.a.schema}.{source}" for source in declared.sources} <= triggers, "nobody is told of changes"


@pytest.mark.parametrize("name", [name for name in MANIFEST.functions if name in MANIFEST.cached_queries])
async def test_a_cached_query_under_its_own_name(shared_world: World, name: str) -> None:
    """tenancy.cached_query() checks what it is given against the catalogue, and somebody has to store the answer."""
    assert MANIFEST.functions[name].input == MANIFEST.cached_queries[name].parameters
    assert not MANIFEST.functions[name].read_only


def test_the_literal_is_found() -> None:
    source: Any = 'x jsonb := tenancy.input_problems(input, \'{"a": {"message": "it\'\'s"}}\');'
    assert LITERAL.findall(source) == ['{"a": {"message": "it\'\'s"}}']


@pytest.mark.parametrize("name", MANIFEST.cached_queries)
async def test_a_cached_query_is_a_function_over_projections(shared_world: World, name: str) -> None:
    declared = MANIFEST.cached_queries[name]
    async with shared_world.admin(shared_world.a) as connection:
        function = await only_function(connection, shared_world.a.schema, declared.function)
    assert (function["arguments"], function["result"]) == ("parameters jsonb", "jsonb")
    assert declared.function in MANIFEST.helpers
    assert set(declared.sources) <= set(MANIFEST.projections)


@pytest.mark.parametrize("name", MANIFEST.activity_types)
async def test_an_activity_type_shows_columns_of_its_table(shared_world: World, name: str) -> None:
    declared = MANIFEST.activity_types[name]
    async with shared_world.admin(shared_world.a) as connection:
        present = await columns(connection, shared_world.a.schema, declared.table)
    assert {declared.user_column, *declared.details} <= set(present)
