"""`tenancy` has versions of its own: migrate-all brings it up in every database before it touches a home."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from control_plane.errors import ConfigurationError
from control_plane.isolation import tenancy_schema
from control_plane.isolation.cluster import check_cluster, upgrade_tenancy
from control_plane.isolation.template_database import ensure_template_database
from control_plane.migrator import Options, migrate_all
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.settings import Settings, shipped
from control_plane.templates import Template, Templates
from tests.support.fleet import Fleet

RELEASED = tenancy_schema.latest_version()

NEXT = """
CREATE OR REPLACE FUNCTION ready() RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN true; END $$;
COMMENT ON FUNCTION ready() IS 'of the next version';
"""


@pytest.fixture
def template(settings: Settings) -> Template:
    return Templates.load(settings.templates)["reference"]


@pytest.fixture
def fleet(databases: Databases, cluster: Cluster, installation_id: UUID, template: Template) -> Fleet:
    return Fleet(databases, cluster, installation_id, template)


@pytest.fixture
def sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of sql/ to release a new version of `tenancy` in; forgotten afterwards."""
    copy = tmp_path / "sql"
    shutil.copytree(shipped("sql"), copy)
    yield copy
    monkeypatch.undo()
    tenancy_schema.shipped_versions.cache_clear()


def release(sql: Path, monkeypatch: pytest.MonkeyPatch, text: str = NEXT) -> None:
    directory = sql / "tenancy" / f"{RELEASED + 1:04}_next"
    directory.mkdir()
    (directory / "1_ready.sql").write_text(text)
    use(sql, monkeypatch)


def use(sql: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenancy_schema, "shipped", lambda name: sql.parent / name)
    tenancy_schema.shipped_versions.cache_clear()


async def test_a_new_version_reaches_every_database(
    fleet: Fleet, sql: Path, monkeypatch: pytest.MonkeyPatch, template: Template
) -> None:
    homes = [await fleet.add(f"of-{mode}", mode, version=template.latest) for mode in ("shared", "schema", "database")]
    old_source = await ensure_template_database(fleet.databases, fleet.cluster, template, template.latest)
    release(sql, monkeypatch)

    outdated = await check_cluster(fleet.databases, fleet.cluster)
    assert {finding.code for finding in outdated} == {"tenancy_version"}
    assert all("migrate-all" in finding.fix for finding in outdated)

    result = await migrate_all(fleet.databases, template, Options())
    assert result.status == "done"
    for home in homes:
        async with fleet.admin(home) as connection:
            assert await connection.fetchval("SELECT tenancy.installed_version()") == RELEASED + 1
            comment = "SELECT obj_description('tenancy.ready()'::regprocedure)"
            assert await connection.fetchval(comment) == "of the next version"
    assert await check_cluster(fleet.databases, fleet.cluster) == []

    async with fleet.admin() as connection:
        left = "SELECT count(*) FROM pg_database WHERE datname = $1"
        assert await connection.fetchval(left, old_source) == 0
    new_home = await fleet.add("later", "database", version=template.latest)
    async with fleet.admin(new_home) as connection:
        assert await connection.fetchval("SELECT tenancy.installed_version()") == RELEASED + 1


async def test_a_version_that_fails_leaves_the_one_before(
    fleet: Fleet, sql: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(sql, monkeypatch, NEXT + "SELECT 1 / 0;")
    async with fleet.admin() as connection:
        with pytest.raises(Exception, match="division by zero"):
            await upgrade_tenancy(connection)
        assert await connection.fetchval("SELECT tenancy.installed_version()") == RELEASED
        assert await connection.fetchval("SELECT obj_description('tenancy.ready()'::regprocedure)") is None


async def test_a_version_that_was_changed_after_its_release_is_refused(
    fleet: Fleet, sql: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = sql / "tenancy" / "0001_tenancy" / "7_posture.sql"
    released.write_text(released.read_text() + "\n-- changed\n")
    release(sql, monkeypatch)
    async with fleet.admin() as connection:
        with pytest.raises(ConfigurationError, match="was changed"):
            await upgrade_tenancy(connection)


async def test_a_newer_version_serves_an_older_release(fleet: Fleet) -> None:
    async with fleet.admin() as connection:
        await connection.execute(
            "INSERT INTO tenancy.versions (version, checksum) VALUES ($1, 'of a later release')", RELEASED + 1
        )
        assert await upgrade_tenancy(connection) is False
    assert await check_cluster(fleet.databases, fleet.cluster) == []
