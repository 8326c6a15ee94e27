"""Statements of concurrent.sql that an earlier attempt has left half done, or done and not recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from control_plane.migrator.apart import perform
from control_plane.settings import Settings
from control_plane.templates import Template, Templates
from control_plane.templates.lint.apart import apart
from tests.support.fleet import Fleet
from tests.support.stepped import with_stepped_template

INDEX = "CREATE UNIQUE INDEX CONCURRENTLY {} ON tb_thing (tenant_id, touched)"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_stepped_template(settings, tmp_path / "stepped")


@pytest.fixture
def template(settings: Settings) -> Template:
    return Templates.load(settings.templates)["sample"]


@dataclass
class Bench:
    """A connection to a home with two things, as the runner has it."""

    connection: asyncpg.Connection
    schema: str

    async def perform(self, sql: str) -> None:
        (statement,) = apart("0002_step/concurrent.sql", sql)
        await perform(self.connection, self.schema, statement)

    async def prepare(self, *statements: str) -> None:
        """As somebody who was interrupted: what fails has failed."""
        await self.connection.execute("SET ROLE cp_owner")
        for statement in statements:
            try:
                await self.connection.execute(statement)
            except asyncpg.PostgresError:
                continue
        await self.connection.execute("RESET ROLE")

    async def indexes(self) -> dict[str, bool]:
        """Name → whether it is valid."""
        sql = """
            SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid
            WHERE indrelid = 'tb_thing'::regclass AND NOT indisprimary
        """
        return {row["relname"]: row["indisvalid"] for row in await self.connection.fetch(sql)}


@pytest_asyncio.fixture
async def bench(fleet: Fleet) -> AsyncIterator[Bench]:
    home = await fleet.add("acme")
    async with fleet.admin() as connection:
        tenant = await connection.fetchval("SELECT id FROM tenancy.tenants WHERE home_id = $1", home.id)
        await connection.execute(f'SET search_path = "{home.schema_name}", extensions, pg_temp')
        made = Bench(connection, home.schema_name)
        await made.prepare(f"INSERT INTO tb_thing (tenant_id) VALUES ('{tenant}'), ('{tenant}')")
        yield made


DIFFERENT = "UPDATE tb_thing SET touched = touched + 1 WHERE id = (SELECT id FROM tb_thing LIMIT 1)"


async def test_an_invalid_index_is_built_anew_and_a_valid_one_is_done(bench: Bench) -> None:
    await bench.prepare(INDEX.format("i"))
    assert await bench.indexes() == {"i": False}
    await bench.prepare(DIFFERENT)
    for _ in range(2):
        await bench.perform(INDEX.format("i"))
        assert await bench.indexes() == {"i": True}


async def test_an_index_that_cannot_be_built_does_not_stay(bench: Bench) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await bench.perform(INDEX.format("i"))
    assert await bench.indexes() == {}


async def test_a_name_that_something_else_has_is_no_index(bench: Bench) -> None:
    with pytest.raises(asyncpg.DuplicateTableError):
        await bench.perform(INDEX.format("tb_thing"))


async def test_an_index_that_is_gone_is_dropped(bench: Bench) -> None:
    await bench.prepare("CREATE INDEX i ON tb_thing (tenant_id, touched)")
    for _ in range(2):
        await bench.perform("DROP INDEX CONCURRENTLY i")
        assert await bench.indexes() == {}


@pytest.mark.parametrize("what", ["INDEX CONCURRENTLY i", "TABLE CONCURRENTLY tb_thing"])
async def test_what_a_rebuild_left_is_dropped(bench: Bench, what: str) -> None:
    await bench.prepare(
        "CREATE INDEX i ON tb_thing (tenant_id, touched)",
        *(INDEX.format(name) for name in ("i_ccnew", "i_ccold1", "other")),
    )
    assert await bench.indexes() == {"i": True, "i_ccnew": False, "i_ccold1": False, "other": False}
    await bench.prepare(DIFFERENT)
    await bench.perform(f"REINDEX {what}")
    assert await bench.indexes() == {"i": True, "other": False}, "what bears another name is nobody's leftover"


async def test_a_label_is_added_once(bench: Bench) -> None:
    await bench.prepare("CREATE TYPE mood AS ENUM ('so')")
    for _ in range(2):
        await bench.perform("ALTER TYPE mood ADD VALUE 'it''s'")
    assert await bench.connection.fetchval("SELECT count(*) FROM pg_enum WHERE enumtypid = 'mood'::regtype") == 2


PARTITIONED = (
    "CREATE TABLE tb_part (tenant_id uuid NOT NULL, id uuid NOT NULL) PARTITION BY HASH (tenant_id)",
    "CREATE TABLE tb_part_0 PARTITION OF tb_part FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
)
DETACH = "ALTER TABLE tb_part DETACH PARTITION tb_part_0 CONCURRENTLY"


async def test_a_partition_that_is_half_detached_is_detached(fleet: Fleet, bench: Bench) -> None:
    await bench.prepare(*PARTITIONED)
    async with fleet.admin() as reader, reader.transaction():
        await reader.execute(f'SET LOCAL ROLE cp_owner; SELECT FROM "{bench.schema}".tb_part')
        await bench.prepare("SET lock_timeout = '50ms'", DETACH, "RESET lock_timeout")
    assert await bench.connection.fetchval(
        "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'tb_part_0'::regclass"
    )
    for statement in (DETACH, DETACH, DETACH.replace("CONCURRENTLY", "FINALIZE")):
        await bench.perform(statement)
        assert not await bench.connection.fetchval(
            "SELECT relispartition FROM pg_class WHERE oid = 'tb_part_0'::regclass"
        )


async def test_a_statement_that_can_be_repeated_is(bench: Bench) -> None:
    await bench.prepare("ALTER TABLE tb_thing ADD CONSTRAINT few CHECK (touched < 9) NOT VALID")
    for _ in range(2):
        await bench.perform("ALTER TABLE tb_thing VALIDATE CONSTRAINT few")
    assert await bench.connection.fetchval("SELECT current_user = session_user"), "the role is given back"
