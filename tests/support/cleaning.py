"""Leaves a server that outlives the session without the session's databases and roles."""

from __future__ import annotations

import asyncpg

from tests.support.servers import Server

_DATABASES = """
SELECT datname FROM pg_database WHERE starts_with(datname, $1) AND NOT datistemplate ORDER BY datname
"""
_REGISTERED = """
SELECT 'cp_' || substr(replace(i.id::text, '-', ''), 1, 8) || '_' AS prefix,
       (SELECT array_agg(database) FROM homes WHERE isolation = 'database') AS databases
FROM installation i
"""


async def clean(server: Server) -> None:
    prefixes: list[str] = []
    databases: list[str] = []
    async with server.connection() as connection:
        own = [row["datname"] for row in await connection.fetch(_DATABASES, server.session)]
    for name in own:
        async with server.connection(name) as connection:
            if await connection.fetchval("SELECT to_regclass('public.installation')") is not None:
                for row in await connection.fetch(_REGISTERED):
                    prefixes.append(row["prefix"])
                    databases += row["databases"] or []
    async with server.connection() as connection:
        for prefix in prefixes:
            databases += [row["datname"] for row in await connection.fetch(
                "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", prefix
            )]  # fmt: skip
        for name in [*databases, *own]:
            await _drop_database(connection, name)
        for prefix in prefixes:
            for row in await connection.fetch("SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1)", prefix):
                await connection.execute(f'DROP ROLE "{row["rolname"]}"')


async def _drop_database(connection: asyncpg.Connection, name: str) -> None:
    if await connection.fetchval("SELECT datistemplate FROM pg_database WHERE datname = $1", name):
        await connection.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE false')
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
