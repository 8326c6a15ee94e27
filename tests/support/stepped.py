"""A template whose versions take steps beside their transactions, and build on them in the next one."""

from __future__ import annotations

from pathlib import Path

from control_plane.registry.models import Home
from control_plane.settings import Settings
from control_plane.templates import Template
from tests.support.fleet import Fleet
from tests.support.templates import write_sample

_DEBTS = "SELECT version, step, statement, rows FROM tenancy.open_steps WHERE home_id = $1 ORDER BY step"
_TABLE = """
CREATE TABLE tb_thing (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL DEFAULT '',
    touched integer NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, id)
);
SELECT tenancy.protect_table('tb_thing');
CREATE VIEW v_thing WITH (security_invoker = true) AS
SELECT tenant_id, id, jsonb_build_object('id', id, 'name', name) AS data FROM tb_thing;
"""
_API = """
CREATE VIEW things WITH (security_invoker = true) AS SELECT tenant_id, id, data FROM v_thing;
"""
_CODES = """
ALTER TABLE tb_thing ADD COLUMN code text, ADD COLUMN number integer;
CREATE FUNCTION fn_number_things() RETURNS integer LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    changed integer;
BEGIN
    UPDATE tb_thing SET number = 1, touched = touched + 1
    WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM tb_thing WHERE number IS NULL LIMIT 20);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;
"""
_INDEX = """\
-- CONCURRENTLY, in a comment
CREATE UNIQUE INDEX CONCURRENTLY tb_thing_name ON tb_thing (tenant_id, name);
"""
_FILL = """\
UPDATE tb_thing SET code = 'of ' || id, touched = touched + 1
WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM tb_thing WHERE code IS NULL LIMIT 10);
SELECT fn_number_things();
"""
_PROOF = """
ALTER TABLE tb_thing ADD CONSTRAINT tb_thing_name UNIQUE USING INDEX tb_thing_name,
                     ADD CONSTRAINT coded CHECK (code IS NOT NULL) NOT VALID;
"""
_PROVED = """
ALTER TABLE tb_thing VALIDATE CONSTRAINT coded;
REINDEX INDEX CONCURRENTLY tb_thing_name;
"""
_REQUIRED = "ALTER TABLE tb_thing ALTER COLUMN code SET NOT NULL, DROP CONSTRAINT coded;"

ROWS = 25  # of a home
TOUCHES = 2  # of each row, by both statements of backfill.sql
VERSIONS = (
    {"expand.sql": _TABLE, "api_v1.sql": _API},
    {"expand.sql": _CODES, "concurrent.sql": _INDEX, "backfill.sql": _FILL},
    {"expand.sql": _PROOF, "concurrent.sql": _PROVED},
    {"expand.sql": _REQUIRED},
)


def stepped_template(directory: Path) -> Template:
    """The template `sample` in `directory`: each version needs what the steps of the one before have done."""
    return write_sample(directory, *VERSIONS)


def with_stepped_template(settings: Settings, directory: Path, share: float = 1.0) -> Settings:
    stepped_template(directory)
    return settings.model_copy(update={"templates": directory, "template": "sample", "backfill_share": share})


async def add(fleet: Fleet, slug: str, mode: str = "schema", rows: int = ROWS) -> Home:
    """A home at version 1 with so many things."""
    home = await fleet.add(slug, mode)
    await put(fleet, home, *(f"thing {number}" for number in range(rows)))
    return home


async def put(fleet: Fleet, home: Home, *names: str) -> None:
    async with fleet.admin(home) as connection, connection.transaction():
        tenant = await connection.fetchval("SELECT id FROM tenancy.tenants WHERE home_id = $1", home.id)
        await connection.execute("SET LOCAL ROLE cp_owner")
        insert = f'INSERT INTO "{home.schema_name}".tb_thing (tenant_id, name) VALUES ($1, $2)'
        await connection.executemany(insert, [(tenant, name) for name in names])


async def things(fleet: Fleet, home: Home, what: str) -> list[object]:
    """One expression of each thing."""
    async with fleet.admin(home) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        return [row[0] for row in await connection.fetch(f'SELECT {what} FROM "{home.schema_name}".tb_thing')]


async def debts(fleet: Fleet, home: Home) -> list[tuple[object, ...]]:
    async with fleet.admin(home) as connection:
        return [tuple(row) for row in await connection.fetch(_DEBTS, home.id)]
