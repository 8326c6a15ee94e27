"""A fleet that is one version behind, again and again from the same bytes, and one run over it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from benchmarks.stage import installation
from control_plane.embedded import EmbeddedServer
from control_plane.migrator import Options, migrate_all
from control_plane.pools.connect import connect
from control_plane.service import open_control_plane
from control_plane.settings import Settings, shipped
from control_plane.templates.release import release

LABELS = """\
CREATE TABLE tb_label (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
SELECT tenancy.protect_table('tb_label');

CREATE VIEW v_label WITH (security_invoker = true) AS
SELECT tenant_id, id, jsonb_build_object('__typename', 'Label', 'id', id, 'name', name) AS data
FROM tb_label;
"""


# While a fleet is prepared, never while anything is measured: it stands sooner, and its copies carry little old WAL.
PREPARING = {"fsync": "off", "max_wal_size": "128MB", "min_wal_size": "32MB"}


def copy_templates(settings: Settings) -> None:
    """The shipped ones, to `settings.templates`, where versions can be added."""
    shutil.copytree(shipped("tenant_templates"), settings.templates)


def write_next_version(settings: Settings, expand: str) -> None:
    """Add a version to the template of `settings`."""
    versions = settings.templates / settings.template / "versions"
    directory = versions / f"{len(list(versions.iterdir())) + 1:04}_labels"
    directory.mkdir()
    (directory / "expand.sql").write_text(expand)


async def vacuum(settings: Settings) -> None:
    """Leave the homes as autovacuum leaves a fleet that has stood for a while; or each run would clean up itself."""
    async with installation(settings) as (plane, cluster), plane.databases.admin(cluster) as connection:
        await connection.execute("VACUUM (ANALYZE)", timeout=600)


async def release_versions(settings: Settings) -> None:
    """Let the new version pass the gate, which costs the first run over any fleet the same moment."""
    async with open_control_plane(settings) as plane, plane.databases.registry.begin() as session:
        template = plane.templates[settings.template]
        await release(session, template, template.latest)


class Stored:
    """The data directory of a stopped installation. A run leaves its catalogue larger and slower for the next one."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._data = EmbeddedServer(home).data
        self._before = self._data.with_name("data.before")
        self._data.rename(self._before)

    @contextmanager
    def restored(self) -> Iterator[EmbeddedServer]:
        """The shipped server on a fresh copy. The copy is on disk first: its writes are nobody's cost."""
        subprocess.run(["/bin/cp", "-a", self._before, self._data], check=True)
        os.sync()
        try:
            with EmbeddedServer(self._home) as server:
                yield server
        finally:
            shutil.rmtree(self._data)


def migrate_once(settings: Settings) -> float:
    """Seconds from the beginning of the plan to the last record of the run, as the command runs it."""

    async def work() -> float:
        async with open_control_plane(settings) as plane:
            began = time.perf_counter()
            result = await migrate_all(plane.databases, plane.templates[settings.template], Options())
            seconds = time.perf_counter() - began
        if result.status != "done":
            raise RuntimeError(f"migrate-all ended as {result.status}")
        return seconds

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


async def server_seconds(dsn: str) -> float:
    """Seconds that sessions, ended ones at least, have spent in statements."""
    connection = await connect(dsn, application_name="benchmark")
    try:
        milliseconds: float = await connection.fetchval("SELECT sum(active_time) FROM pg_stat_database")
    finally:
        await connection.close()
    return milliseconds / 1000
