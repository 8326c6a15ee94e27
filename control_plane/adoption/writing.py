"""The functions that take over an entity's writes, and the role that owns them."""

from __future__ import annotations

import json

from control_plane.adoption.catalog import Table, adoption_sql, read_tables
from control_plane.adoption.ddl import literal, role_ddl, select_grants
from control_plane.adoption.mapping import Mapping
from control_plane.adoption.work import Work, mapping_of
from control_plane.registry.models import AdoptedEntity
from control_plane.templates.script import quote

ACTIONS = ("create", "update", "delete")
# The stages in which the application may call the functions.
OPEN_STAGES = ("views", "functions", "done")

# What a default of the table draws its numbers from; an identity column needs no grant.
_SEQUENCES = """
SELECT DISTINCT d.refobjid::regclass::text AS name
FROM pg_attrdef AS a
JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class AS s ON s.oid = d.refobjid AND s.relkind = 'S'
WHERE a.adrelid = $1
"""


async def install_writers(work: Work, entity: AdoptedEntity) -> None:
    """Make the functions of `entity`, with the rights that they need; run in a transaction, and as often as wanted."""
    mapping, table = await _table(work, entity)
    ground, source = work.ground, table.sql
    reader, writer, schema = quote(ground.reader_role), quote(ground.writer_role), quote(ground.schema)
    sequences = [row["name"] for row in await work.connection.fetch(_SEQUENCES, table.oid)]
    label, fields = literal(mapping.label), literal(json.dumps(_fields(table)))
    entities = ground.qualified("adopted_entities")
    preparation = [
        f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {writer};",
        f"GRANT SELECT ON adopted_tables, adopted_entities, {ground.qualified(mapping.view)} TO {writer};",
        f"GRANT EXECUTE ON FUNCTION adopted_table, key_list, key_values, sync_row TO {writer};",
        f"INSERT INTO {entities} (name, table_name, fields) VALUES ({literal(entity.name)}, {label}, {fields})"
        " ON CONFLICT (name) DO UPDATE SET table_name = EXCLUDED.table_name, fields = EXCLUDED.fields;",
    ]
    functions = [adoption_sql("writers.sql"), *(_function(entity.name, action) for action in ACTIONS)]
    await work.connection.execute(
        "\n".join(
            [
                role_ddl(ground.writer_role),
                select_grants(ground, mapping, ground.writer_role),
                f"GRANT INSERT, UPDATE, DELETE ON {source} TO {writer};",
                *(f"GRANT USAGE ON SEQUENCE {name} TO {writer};" for name in sequences),
                ground.within(preparation),
                ground.within(functions, ground.writer_role),
                ground.within([f"REVOKE CREATE ON SCHEMA {schema} FROM {writer};"], ground.reader_role),
                f"-- {reader} stays the owner of all but the functions",
            ]
        )
    )
    if entity.stage in OPEN_STAGES:
        await open_to_application(work, entity)


async def open_to_application(work: Work, entity: AdoptedEntity) -> None:
    """Let the application's role read the view and the projection and call the functions."""
    mapping, _ = await _table(work, entity)
    ground, app = work.ground, quote(entity.app_role)
    reading = [
        f"GRANT USAGE ON SCHEMA {quote(ground.schema)} TO {app};",
        f"GRANT SELECT ON {ground.qualified(mapping.view)}, {ground.qualified(mapping.projection)} TO {app};",
    ]
    calling = [f"GRANT EXECUTE ON FUNCTION {_names(entity.name)} TO {app};"]
    await work.connection.execute("\n".join([ground.within(reading), ground.within(calling, ground.writer_role)]))


async def close_to_application(work: Work, entity: AdoptedEntity) -> None:
    """The opposite. What a reader of the adoption may read, and what other entities need, stays."""
    mapping, _ = await _table(work, entity)
    ground, app = work.ground, quote(entity.app_role)
    statements = [ground.within([f"REVOKE ALL ON FUNCTION {_names(entity.name)} FROM {app};"], ground.writer_role)]
    if entity.app_role not in ground.readers:
        relations = f"{ground.qualified(mapping.view)}, {ground.qualified(mapping.projection)}"
        closing = [f"REVOKE SELECT ON {relations} FROM {app};"]
        others = [each for each in work.entities if each is not entity and each.stage in OPEN_STAGES]
        if all(each.app_role != entity.app_role for each in others):
            closing.append(f"REVOKE USAGE ON SCHEMA {quote(ground.schema)} FROM {app};")
        statements.append(ground.within(closing))
    await work.connection.execute("\n".join(statements))


async def remove_writers(work: Work, entity: AdoptedEntity) -> None:
    """Drop the functions of `entity` and the rights that only they needed; with the last entity goes the role."""
    ground, connection = work.ground, work.connection
    writer = quote(ground.writer_role)
    if not await connection.fetchval("SELECT to_regrole(quote_ident($1)) IS NOT NULL", ground.writer_role):
        return
    entry = f"DELETE FROM {ground.qualified('adopted_entities')} WHERE name = {literal(entity.name)};"
    if all(each is entity or each.stage == "orm" for each in work.entities):
        statements = [f"DROP OWNED BY {writer} RESTRICT;", f"DROP ROLE {writer};", ground.within([entry])]
    else:
        _, table = await _table(work, entity)
        sequences = [row["name"] for row in await connection.fetch(_SEQUENCES, table.oid)]
        drop = f"DROP FUNCTION IF EXISTS {', '.join(f'{name}(jsonb)' for name in _function_names(entity.name))};"
        statements = [
            ground.within([drop], ground.writer_role),
            ground.within([entry]),
            f"REVOKE ALL ON {table.sql} FROM {writer};",
            *(f"REVOKE ALL ON SEQUENCE {name} FROM {writer};" for name in sequences),
        ]
    await connection.execute("\n".join(statements))


async def _table(work: Work, entity: AdoptedEntity) -> tuple[Mapping, Table]:
    row = work.table(f"{entity.schema_name}.{entity.table_name}")
    return mapping_of(row), (await read_tables(work.connection, row.schema_name, [row.table_name]))[0]


def _fields(table: Table) -> dict[str, dict[str, bool]]:
    return {
        column.name: {"required": column.not_null and not column.has_default, "nullable": not column.not_null}
        for column in table.columns
        if column.writable
    }


def _function(entity: str, action: str) -> str:
    name = quote(f"fn_{action}_{entity}")
    return f"""\
CREATE OR REPLACE FUNCTION {name}(input jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN write_row({literal(entity)}, {literal(action)}, input);
END
$$;
REVOKE ALL ON FUNCTION {name} FROM PUBLIC;"""


def _function_names(entity: str) -> list[str]:
    return [quote(f"fn_{action}_{entity}") for action in ACTIONS]


def _names(entity: str) -> str:
    return ", ".join(f"{name}(jsonb)" for name in _function_names(entity))
