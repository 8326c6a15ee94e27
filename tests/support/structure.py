"""The structure of a home as comparable text: what its catalogue says, with the names that differ by home taken out."""

from __future__ import annotations

from uuid import UUID

import asyncpg

# (object, definition) of everything in the home's schemas; $1 is the home. Request roles come last in lists of roles.
_STRUCTURE = r"""
WITH s AS MATERIALIZED (SELECT schema_oid, schema_name FROM tenancy.home_schemas($1)),
rel AS MATERIALIZED (SELECT c.* FROM pg_class c JOIN s ON s.schema_oid = c.relnamespace),
fn AS MATERIALIZED (SELECT p.* FROM pg_proc p JOIN s ON s.schema_oid = p.pronamespace),
granted AS (
    SELECT 'schema ' || s.schema_name AS object, nspacl AS acl FROM s JOIN pg_namespace n ON n.oid = s.schema_oid
    UNION ALL SELECT 'relation ' || oid::regclass, relacl FROM rel WHERE relkind IN ('r', 'p', 'v')
    UNION ALL SELECT 'function ' || oid::regprocedure, proacl FROM fn
    UNION ALL SELECT 'column ' || attrelid::regclass || '.' || attname, attacl
              FROM pg_attribute JOIN rel ON rel.oid = attrelid WHERE attacl IS NOT NULL
)
SELECT 'schema ' || schema_name, '' FROM s
UNION ALL
SELECT 'relation ' || oid::regclass, concat_ws(' ', relkind, relowner::regrole, relpersistence, relrowsecurity,
       relforcerowsecurity, relispartition, reloptions::text, obj_description(oid, 'pg_class'))
FROM rel
UNION ALL
SELECT 'column ' || rel.oid::regclass || '.' || attname, concat_ws(' ',
       row_number() OVER (PARTITION BY rel.oid ORDER BY attnum), format_type(atttypid, atttypmod), attnotnull,
       attidentity, attgenerated, attcollation::regcollation, attstorage,
       (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum))
FROM pg_attribute JOIN rel ON rel.oid = attrelid
WHERE relkind IN ('r', 'p', 'v', 'c') AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'view ' || oid::regclass, pg_get_viewdef(oid) FROM rel WHERE relkind = 'v'
UNION ALL
SELECT 'constraint ' || conrelid::regclass || '.' || conname,
       concat_ws(' ', pg_get_constraintdef(k.oid), convalidated, condeferrable)
FROM pg_constraint k JOIN rel ON rel.oid = conrelid
UNION ALL
SELECT 'index ' || indexrelid::regclass, concat_ws(' ', pg_get_indexdef(indexrelid), indisvalid, indisunique)
FROM pg_index JOIN rel ON rel.oid = indrelid
UNION ALL
SELECT 'policy ' || polrelid::regclass || '.' || polname, concat_ws(' ', polpermissive, polcmd,
       (SELECT string_agg(r::regrole::text, ',' ORDER BY r::regrole::text LIKE 'cp\_%\_t\_%', r::regrole::text)
        FROM unnest(polroles) r),
       pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
FROM pg_policy JOIN rel ON rel.oid = polrelid
UNION ALL
SELECT 'trigger ' || tgrelid::regclass || '.' || tgname, concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled)
FROM pg_trigger t JOIN rel ON rel.oid = tgrelid WHERE NOT tgisinternal
UNION ALL
SELECT 'statistics ' || stxrelid::regclass || '.' || stxname, pg_get_statisticsobjdef(x.oid)
FROM pg_statistic_ext x JOIN rel ON rel.oid = stxrelid
UNION ALL
SELECT 'function ' || oid::regprocedure, proowner::regrole || ' ' || pg_get_functiondef(oid)
FROM fn WHERE prokind IN ('f', 'p')
UNION ALL
SELECT 'grant on ' || object, (
    SELECT string_agg(concat_ws(' ', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type,
                                is_grantable),
                      ', ' ORDER BY grantee::regrole::text LIKE 'cp\_%\_t\_%', grantee::regrole::text, privilege_type)
    FROM aclexplode(acl))
FROM granted
UNION ALL
SELECT 'written by functions ' || table_name, '' FROM tenancy.function_tables WHERE home_id = $1
UNION ALL
SELECT 'home', concat_ws(' ', template, version, checksum, default_api) FROM tenancy.homes WHERE id = $1
"""
_NAMES = """
SELECT h.schema_name, h.tenant_id, array(SELECT role_name FROM tenancy.home_roles r WHERE r.home_id = h.id) AS roles
FROM tenancy.homes h WHERE h.id = $1
"""


async def structure(connection: asyncpg.Connection, home_id: UUID) -> dict[str, str]:
    """Object → definition, equal for equal homes wherever they stand; `connection` is an administrative one."""
    names = await connection.fetchrow(_NAMES, home_id)
    assert names is not None, "there is no such home"
    # Roles first: their names hold that of the schema.
    replaced = {**dict.fromkeys(names["roles"], "<request>"), names["schema_name"]: "<home>"}
    if names["tenant_id"] is not None:
        replaced[str(names["tenant_id"])] = "<tenant>"
    async with connection.transaction():
        await connection.execute("SET LOCAL search_path = pg_catalog")  # or names would be printed without schema
        rows = await connection.fetch(_STRUCTURE, home_id)
    found: dict[str, str] = {}
    for name, definition in rows:
        plain_name, plain = str(name), str(definition)
        for own, common in replaced.items():
            plain_name, plain = plain_name.replace(own, common), plain.replace(own, common)
        assert plain_name not in found, f"{plain_name} is there twice"
        found[plain_name] = plain
    return found


def difference(one: dict[str, str], other: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """What is not the same in both."""
    return {
        name: (one.get(name), other.get(name)) for name in sorted({*one, *other}) if one.get(name) != other.get(name)
    }
