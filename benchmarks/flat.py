"""The raw DDL that provisioning is compared with: written out flat, without any function of the schema `tenancy`.

It is read back from a home that the control plane built, at its last version: no object is created and then changed,
constraints stand in CREATE TABLE, and there is one GRANT per kind. Nobody would write it by hand any shorter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg

from control_plane.isolation.login import scram_verifier
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home, Tenant

SQL = Path(__file__).parent / "sql"


@dataclass(frozen=True)
class Subject:
    """A tenant in a home, built or still to be built."""

    home: Home
    tenant: Tenant


async def schema_home_message(databases: Databases, cluster: Cluster, built: Subject, wanted: Subject) -> str:
    """One message that makes `wanted` what `built` is: role, schemas, objects, grants, rows of tenancy."""
    home = built.home
    async with databases.admin(cluster, home.database) as connection:
        ddl = await _ddl(connection, home)
        rows = await _rows(connection, built)
        functions = await _functions(connection, home.id)
        role = await _role(connection, home, ["cp_request", home.database])
    schemas = ", ".join(statement.split()[2] for rank, statement in ddl if rank == 1)
    message = [
        *role,
        *(statement for rank, statement in ddl if rank == 1),
        f"COMMENT ON SCHEMA \"{home.schema_name}\" IS '{built.tenant.slug}'",
        "SET LOCAL ROLE cp_owner",
        "SET LOCAL search_path = ''",
        *(statement for rank, statement in ddl if rank > 1),
        f"GRANT USAGE ON SCHEMA {schemas} TO cp_definer, {home.role_name}",
        f"GRANT SELECT ON {_names(ddl, 4)} TO cp_definer, {home.role_name}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {_names(ddl, 2)} TO cp_definer, {home.role_name}",
        f"GRANT EXECUTE ON FUNCTION {functions} TO cp_definer, {home.role_name}",
        "SET LOCAL ROLE NONE",
        *rows,
    ]
    return _renamed(";\n".join(message), built, wanted, scram_verifier(databases.box.open(wanted.home.password)))


async def database_home_messages(
    databases: Databases, cluster: Cluster, built: Subject, wanted: Subject, template_database: str
) -> tuple[list[str], str]:
    """What makes a database home: the calls in the tenants' database, and the one call in the new database."""
    home, name = built.home, wanted.home.database
    async with databases.admin(cluster, home.database) as connection:
        tables = await connection.fetch(
            "SELECT conrelid::regclass::text AS name, conname FROM pg_constraint "
            "WHERE contype = 'c' AND pg_get_constraintdef(oid) = $1",
            f"CHECK ((tenant_id = '{built.tenant.id}'::uuid))",
        )
        await connection.execute("SET search_path = ''")
        ddl = await _ddl(connection, home)
        functions = await _functions(connection, home.id)
        role = await _role(connection, home, ["cp_request"])
    verifier = scram_verifier(databases.box.open(wanted.home.password))
    login = ";\n".join(
        [
            *role,
            f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC',
            f'GRANT CONNECT ON DATABASE "{name}" TO {home.role_name}',
        ]
    )
    schemas = ", ".join(statement.split()[2] for rank, statement in ddl if rank == 1)
    claim = ";\n".join(
        [
            *(
                f"ALTER TABLE {table['name']} DROP CONSTRAINT {table['conname']}, "
                f"ADD CONSTRAINT {table['conname']} CHECK (tenant_id = '{built.tenant.id}'::uuid)"
                for table in tables
            ),
            f"UPDATE tenancy.homes SET id = '{home.id}', tenant_id = '{built.tenant.id}', updated_at = now()",
            *_tenant_rows(built),
            f"COMMENT ON SCHEMA \"{home.schema_name}\" IS '{built.tenant.slug}'",
            f"GRANT USAGE ON SCHEMA {schemas} TO {home.role_name}",
            f"GRANT SELECT ON {_names(ddl, 4)} TO {home.role_name}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {_names(ddl, 2)} TO {home.role_name}",
            f"GRANT EXECUTE ON FUNCTION {functions} TO {home.role_name}",
        ]
    )
    create = f'CREATE DATABASE "{name}" TEMPLATE "{template_database}" OWNER cp_owner'
    return [create, _renamed(login, built, wanted, verifier)], _renamed(claim, built, wanted, verifier)


async def structure(databases: Databases, cluster: Cluster, home: Home) -> list[str]:
    """All facts about a home, comparable between homes."""
    query = (SQL / "home_structure.sql").read_text()
    async with databases.admin(cluster, home.database) as connection:
        await connection.execute("SET search_path = ''")
        return [row["fact"] for row in await connection.fetch(query, home.schema_name, home.role_name)]


async def _ddl(connection: asyncpg.Connection, home: Home) -> list[tuple[int, str]]:
    await connection.execute("SET search_path = ''")
    rows = await connection.fetch((SQL / "home_ddl.sql").read_text(), home.schema_name)
    return [(row["rank"], row["statement"].rstrip()) for row in rows]


def _names(ddl: list[tuple[int, str]], rank: int) -> str:
    return ", ".join(statement.split()[2] for each, statement in ddl if each == rank)


async def _functions(connection: asyncpg.Connection, home_id: UUID) -> str:
    """Those that requests may call, as GRANT names them."""
    found: str = await connection.fetchval(
        "SELECT string_agg(p.oid::regprocedure::text, ', ') FROM tenancy.homes h "
        "JOIN tenancy.manifests m ON m.template = h.template AND m.version = h.version "
        "CROSS JOIN jsonb_to_recordset(m.manifest -> 'functions') AS f (api integer, name text) "
        "JOIN pg_namespace n ON n.nspname = h.schema_name || coalesce('__api_v' || f.api, '') "
        "JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = f.name WHERE h.id = $1",
        home_id,
    )
    return found


async def _role(connection: asyncpg.Connection, home: Home, members_of: list[str]) -> list[str]:
    role = home.role_name
    settings: list[str] = await connection.fetchval("SELECT rolconfig FROM pg_roles WHERE rolname = $1", role)
    return [
        f"CREATE ROLE {role} LOGIN PASSWORD '<verifier>' IN ROLE {', '.join(members_of)} ROLE cp_admin",
        *(
            f"ALTER ROLE {role} SET {name} = {_value(name, value)}"
            for name, _, value in (setting.partition("=") for setting in settings)
        ),
    ]


def _value(name: str, value: str) -> str:
    return value if name == "search_path" else f"'{value}'"  # the path is a list, quoted already


async def _rows(connection: asyncpg.Connection, built: Subject) -> list[str]:
    home = await connection.fetchrow("SELECT * FROM tenancy.homes WHERE id = $1", built.home.id)
    assert home is not None
    return [
        "INSERT INTO tenancy.homes "
        "(id, isolation, template, schema_name, tenant_id, version, checksum, default_api) "
        f"VALUES ('{home['id']}', 'schema', '{home['template']}', '{home['schema_name']}', '{home['tenant_id']}', "
        f"{home['version']}, '{home['checksum']}', {home['default_api']})",
        *_tenant_rows(built),
    ]


def _tenant_rows(built: Subject) -> list[str]:
    home, tenant = built.home, built.tenant
    return [
        f"INSERT INTO tenancy.home_roles (home_id, role_name) VALUES ('{home.id}', '{home.role_name}')",
        "INSERT INTO tenancy.tenants (id, home_id, slug, state) "
        f"VALUES ('{tenant.id}', '{home.id}', '{tenant.slug}', 'provisioning')",
    ]


def _renamed(message: str, built: Subject, wanted: Subject, verifier: str) -> str:
    names = {
        built.home.role_name: wanted.home.role_name,  # before the schema's name, which is its end
        built.home.schema_name: wanted.home.schema_name,
        str(built.home.id): str(wanted.home.id),
        str(built.tenant.id): str(wanted.tenant.id),
        f"'{built.tenant.slug}'": f"'{wanted.tenant.slug}'",
        "<verifier>": verifier,
    }
    for old, new in names.items():
        message = message.replace(old, new)
    return message
