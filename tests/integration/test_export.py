"""A tenant's rows in one file, and no row of anybody else."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from uuid import UUID

import pytest

from control_plane.errors import InvalidInput, TenantNotFound
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home
from control_plane.settings import Settings
from control_plane.templates import Templates
from control_plane.tenants.export import export_tenant
from tests.support.fleet import Fleet

MODES = ("shared", "schema", "database")


@pytest.fixture
def fleet(databases: Databases, cluster: Cluster, installation_id: UUID, settings: Settings) -> Fleet:
    return Fleet(databases, cluster, installation_id, Templates.load(settings.templates)["reference"])


async def fill(fleet: Fleet, home: Home, slug: str) -> None:
    async with fleet.admin(home) as connection:
        tenant = await connection.fetchval("SELECT id FROM tenancy.tenants WHERE slug = $1", slug)
        await connection.execute(f'SET ROLE cp_owner; SET search_path = "{home.schema_name}", extensions')
        for name in (f"of {slug}", 'with "quotes", \\ and \x7f, é\n'):
            await connection.execute("INSERT INTO tb_project (tenant_id, name) VALUES ($1, $2)", tenant, name)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("mode", MODES)
async def test_the_file_holds_the_tenants_rows_and_no_others(fleet: Fleet, tmp_path: Path, mode: str) -> None:
    for slug in ("acme", "beta"):
        await fill(fleet, await fleet.add(slug, mode, version=fleet.template.latest), slug)
    path, seen = tmp_path / "acme.zip", []
    written = await export_tenant(
        fleet.databases, "acme", path, actor="tests", progress=lambda table, rows: seen.append((table, rows))
    )
    assert (written.rows["tb_project"], written.pattern_version) == (2, fleet.template.latest)
    assert seen == list(written.rows.items())
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        rows = [json.loads(line) for line in archive.read("tb_project.ndjson").split(b"\n") if line]
        assert set(archive.namelist()) == {"manifest.json", *(f"{table}.ndjson" for table in written.rows)}
    assert manifest["tenant"]["slug"] == "acme"
    assert manifest["rows"] == written.rows
    assert {row["name"] for row in rows} == {"of acme", 'with "quotes", \\ and \x7f, é\n'}
    assert {row["tenant_id"] for row in rows} == {manifest["tenant"]["id"]}
    assert rows[0]["created_at"].endswith("+00:00")


async def test_nothing_is_overwritten_and_nothing_half_written(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "acme.zip"
    with pytest.raises(TenantNotFound):
        await export_tenant(fleet.databases, "nobody", path, actor="tests", progress=lambda *_: None)
    await fleet.add("acme", "schema", version=1)

    def stop(table: str, rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await export_tenant(fleet.databases, "acme", path, actor="tests", progress=stop)
    assert files(tmp_path) == []
    path.write_text("precious")
    with pytest.raises(InvalidInput):
        await export_tenant(fleet.databases, "acme", path, actor="tests", progress=lambda *_: None)
    assert path.read_text() == "precious"


async def test_a_tenant_with_many_rows_is_erased_in_batches(fleet: Fleet) -> None:
    home = await fleet.add("acme", "shared", version=fleet.template.latest)
    await fleet.add("beta", "shared", version=fleet.template.latest)
    async with fleet.admin(home) as connection:
        acme, beta = [
            await connection.fetchval("SELECT id FROM tenancy.tenants WHERE slug = $1", slug)
            for slug in ("acme", "beta")
        ]
        await connection.execute(f'SET ROLE cp_owner; SET search_path = "{home.schema_name}", extensions')
        for tenant in (acme, beta):
            await connection.execute(
                "INSERT INTO tb_project (tenant_id, name) SELECT $1, 'p' FROM generate_series(1, 25)", tenant
            )
        await connection.execute("RESET ROLE")
        erased = []
        while rows := await connection.fetchval("SELECT tenancy.erase_rows($1, 10)", acme):
            erased.append(rows)
        assert sum(erased) == 25
        assert max(erased) <= 10
        await connection.execute("SELECT tenancy.erase_tenant($1)", acme)
        left = await connection.fetch(f'SELECT tenant_id, count(*) FROM "{home.schema_name}".tb_project GROUP BY 1')
        assert left == [] or {row["tenant_id"] for row in left} == {beta}
        await connection.execute("SET ROLE cp_owner")
        own = f'SELECT count(*) FROM "{home.schema_name}".tb_project WHERE tenant_id = $1'
        assert await connection.fetchval(own, beta) == 25
        assert await connection.fetchval(own, acme) == 0
