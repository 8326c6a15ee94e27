"""Runs of `migrate-all`, and what stands in their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from control_plane.migrator import Event, HomeResult, Options, RunResult, migrate_all
from control_plane.registry.models import Home
from tests.support.fleet import Fleet

MODES = ("shared", "schema", "database")

MIGRATORS = """
SELECT pid FROM pg_stat_activity WHERE application_name = 'control-plane migrate' AND datname = current_database()
"""

INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"

WAITING = f"{MIGRATORS} AND wait_event_type = 'Lock'"


async def run(fleet: Fleet, target: int | None = None, **options: object) -> tuple[RunResult, dict[str, HomeResult]]:
    """Migrate; the result and the outcome of each home by its label."""
    outcomes: dict[str, HomeResult] = {}

    def listen(event: Event) -> None:
        if isinstance(event, HomeResult):
            assert event.label not in outcomes, "a home has one outcome"
            outcomes[event.label] = event

    chosen = Options(target=target, **options)  # type: ignore[arg-type]
    return await migrate_all(fleet.databases, fleet.template, chosen, listener=listen), outcomes


@asynccontextmanager
async def holding(fleet: Fleet, home: Home, statement: str) -> AsyncIterator[None]:
    """A transaction that has run `statement` and stays open."""
    async with fleet.admin(home) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        await connection.execute(statement.format(schema=home.schema_name, home=home.id))
        yield


async def until(connection: asyncpg.Connection, query: str, *arguments: object) -> None:
    while not await connection.fetchval(query, *arguments):
        await asyncio.sleep(0.005)  # the database sends no event


async def add_conflicting_column(fleet: Fleet, home: Home) -> None:
    async with fleet.admin(home) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        await connection.execute(f'ALTER TABLE "{home.schema_name}".tb_user ADD COLUMN bio text')
