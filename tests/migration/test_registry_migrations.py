"""The registry's migrations lead to what the models say, from any start."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from procrastinate.schema import SchemaManager
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.pools.connect import registry_engine
from control_plane.registry import job_schema
from control_plane.registry.models import Base
from control_plane.registry.upgrade import MIGRATIONS, alembic_config, is_current, shipped_heads, upgrade


@pytest_asyncio.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    opened = registry_engine(database)
    yield opened
    await opened.dispose()


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _: kind != "table" or not name.startswith("procrastinate_"),
        },
    )
    return list(compare_metadata(context, Base.metadata))


def test_what_a_command_reads_without_the_packages_is_what_they_say() -> None:
    assert shipped_heads() == set(ScriptDirectory.from_config(alembic_config()).get_heads())
    directory = Path(SchemaManager.get_migrations_path())
    assert list(job_schema.shipped_migrations().values()) == sorted(directory.glob("*.sql"))


async def test_the_migrations_lead_to_the_models(engine: AsyncEngine) -> None:
    await upgrade(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []


async def test_check_constraints_of_migrations_and_models_are_the_same(engine: AsyncEngine, database: str) -> None:
    """Alembic does not compare them."""
    query = text("""
        SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE contype = 'c' AND connamespace = 'public'::regnamespace AND conrelid::regclass::text !~ '^procrastinate'
        ORDER BY 1
    """)
    await upgrade(engine)
    async with engine.connect() as connection:
        migrated = (await connection.execute(query)).all()
        await connection.rollback()
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
        await connection.run_sync(Base.metadata.create_all)
        assert (await connection.execute(query)).all() == migrated


async def test_upgrading_twice_changes_nothing(engine: AsyncEngine) -> None:
    assert not await is_current(engine)
    await upgrade(engine)
    await upgrade(engine)
    assert await is_current(engine)


async def test_two_processes_may_upgrade_at_once(database: str) -> None:
    script = (
        "import asyncio, sys\n"
        "from control_plane.pools.connect import registry_engine\n"
        "from control_plane.registry.upgrade import upgrade\n"
        "asyncio.run(upgrade(registry_engine(sys.argv[1])))\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", script, database, stderr=asyncio.subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        _, complaint = await process.communicate()
        assert process.returncode == 0, complaint.decode()


async def test_a_registry_has_exactly_one_installation(engine: AsyncEngine) -> None:
    await upgrade(engine)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM installation"))).scalar_one() == 1
        with pytest.raises(IntegrityError, match="uq_installation_single"):
            await connection.execute(text("INSERT INTO installation (id) VALUES (gen_random_uuid())"))


def test_the_names_of_revisions_begin_with_their_dates() -> None:
    names = [path.name for path in (MIGRATIONS / "versions").glob("*.py")]
    assert names
    assert [name for name in names if not re.fullmatch(r"\d{4}-\d\d-\d\d-\d{4}_[a-z0-9_]+\.py", name)] == []


async def test_the_job_tables_follow_the_installed_package(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A release with a newer Procrastinate finds the registry behind and applies what that package brought."""
    await upgrade(engine)
    shipped = job_schema.shipped_migrations()
    newer = tmp_path / "99.00.00_01_newer.sql"
    newer.write_text("COMMENT ON TABLE procrastinate_jobs IS 'newer'; COMMENT ON TABLE procrastinate_events IS 'too';")
    monkeypatch.setattr(job_schema, "shipped_migrations", lambda: {**shipped, newer.name: newer})
    assert not await is_current(engine)
    await upgrade(engine)
    assert await is_current(engine)
    async with engine.connect() as connection:
        comment = text("SELECT obj_description('procrastinate_jobs'::regclass)")
        assert (await connection.execute(comment)).scalar_one() == "newer"


async def test_all_migrations_of_the_package_lead_to_its_schema(engine: AsyncEngine, database: str) -> None:
    """Creating the tables at once records every migration as applied: that must be true."""
    query = text("""
        SELECT p.proname, md5(pg_get_functiondef(p.oid)) FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND p.proname LIKE 'procrastinate%' ORDER BY 1, 2
    """)
    await upgrade(engine)
    async with engine.begin() as connection:
        at_once = (await connection.execute(query)).all()
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    for path in job_schema.shipped_migrations().values():
        async with engine.begin() as connection:
            await connection.run_sync(job_schema.execute_script, path.read_text("utf-8"))
    async with engine.connect() as connection:
        assert (await connection.execute(query)).all() == at_once


async def test_of_several_open_runs_of_a_template_the_latest_stays_open(engine: AsyncEngine) -> None:
    """Earlier releases let any number be open; from revision 20261126_0130 on a template has one."""

    def upgrade_to(connection: Connection, revision: str) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    async with engine.begin() as connection:
        await connection.run_sync(upgrade_to, "20261125_2220")
        await connection.execute(
            text("""
                INSERT INTO runs (id, template, target, status, started_at)
                SELECT gen_random_uuid(), template, number, status, now() + make_interval(mins => number)
                FROM (VALUES ('one', 1, 'running'), ('one', 2, 'paused'), ('one', 3, 'done'), ('two', 4, 'running'))
                    AS run (template, number, status)
            """)
        )
    async with engine.begin() as connection:
        await connection.run_sync(upgrade_to, "head")
        rows = await connection.execute(text("SELECT target, status, finished_at IS NULL FROM runs ORDER BY target"))
        assert [tuple(row) for row in rows] == [
            (1, "halted", False), (2, "paused", True), (3, "done", True), (4, "running", True),
        ]  # fmt: skip
