"""Brings the registry to the newest revision. Configured here, because an installed wheel has no alembic.ini."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from control_plane.registry.job_schema import missing_migrations, upgrade_job_schema

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
_REVISION = re.compile(r"^(?P<name>revision|down_revision)(?:: [^=]+)? = \"(?P<id>\w+)\"", re.MULTILINE)

# Alembic keeps its context in module globals: a second entry in this process would mix two databases' migrations.
_one_at_a_time = asyncio.Lock()


def alembic_config() -> Config:
    from alembic.config import Config

    config = Config()
    # Config interpolates '%', so a path that contains one must be escaped.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(year)d-%%(month).2d-%%(day).2d-%%(hour).2d%%(minute).2d_%%(slug)s")
    return config


async def upgrade(engine: AsyncEngine) -> None:
    """Apply what is missing; safe when several processes start at once, and after a crash in between."""
    async with _one_at_a_time:
        async with _locked(engine) as connection:
            await connection.run_sync(_upgrade)
        left = True
        while left:
            async with _locked(engine) as connection:
                left = await connection.run_sync(upgrade_job_schema)


@asynccontextmanager
async def _locked(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that no other process has beside it."""
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('control_plane.registry', 0))"))
        yield connection


def _upgrade(connection: Connection) -> None:
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def is_current(engine: AsyncEngine) -> bool:
    """Whether the registry is at the revision, and has the job tables, that this release was written for."""
    async with engine.connect() as connection:
        return await connection.run_sync(_is_current)


def _is_current(connection: Connection) -> bool:
    """Every command asks, so the answer is worked out without Alembic, which would load each of the migrations."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return False
    current = set(connection.scalars(text("SELECT version_num FROM alembic_version")))
    return current == shipped_heads() and not missing_migrations(connection)


def shipped_heads() -> set[str]:
    """The revisions that no other one follows."""
    found: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for file in (MIGRATIONS / "versions").glob("*.py"):
        for match in _REVISION.finditer(file.read_text("utf-8")):
            found[match["name"]].add(match["id"])
    return found["revision"] - found["down_revision"]
