"""Waves on real homes: what a trial finds out spares the rest of the fleet."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import update

from control_plane.migrator import Event, HomeResult, Options, Policy, RunResult, WaveBegun, migrate_all
from control_plane.migrator.policy import WavePolicy
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Tenant
from control_plane.settings import Settings
from control_plane.templates import Templates
from tests.integration.migrator.runs import MODES, add_conflicting_column
from tests.support.fleet import Fleet
from tests.support.templates import with_next_version

SMALL = Policy(waves=WavePolicy(canaries=1, shares=(), largest=0))


async def run(fleet: Fleet, **options: object) -> tuple[RunResult, dict[str, list[str]]]:
    """The result, and the labels that had an outcome by wave."""
    waves: dict[str, list[str]] = {}

    def listen(event: Event) -> None:
        if isinstance(event, WaveBegun):
            waves[event.name] = []
        elif isinstance(event, HomeResult):
            waves[list(waves)[-1]].append(event.label)

    chosen = Options(policy=SMALL, **options)  # type: ignore[arg-type]
    return await migrate_all(fleet.databases, fleet.template, chosen, listener=listen), waves


async def test_internal_tenants_go_first_and_canaries_of_each_mode_next(fleet: Fleet) -> None:
    for number in range(3):
        for mode in MODES:
            await fleet.add(f"{mode}-{number}", mode)
    async with fleet.databases.registry.begin() as session:
        await session.execute(update(Tenant).where(Tenant.slug == "schema-1").values(labels={"ring": "internal"}))
    result, waves = await run(fleet)
    assert result.status == "done"
    assert list(waves) == ["internal", "canary", "rest", "shared"]
    assert waves["internal"] == ["schema-1"]
    assert sorted(label.partition("-")[0] for label in waves["canary"]) == ["database", "schema"]
    assert len(waves["rest"]) == 3
    assert waves["shared"] == ["shared home of 3 tenants"]


@pytest.fixture
def broken(databases: Databases, cluster: Cluster, installation_id: UUID, settings: Settings, tmp_path: Path) -> Fleet:
    """A fleet whose template has a fourth version with a smoke.sql that fails."""
    files = {"expand.sql": "COMMENT ON TABLE tb_user IS 'people';", "smoke.sql": "SELECT 1 / 0;"}
    cut = with_next_version(settings, tmp_path / "broken", "comment", files, {})
    return Fleet(databases, cluster, installation_id, Templates.load(cut.templates)["reference"])


async def test_a_smoke_file_that_fails_in_a_canary_stops_the_run(broken: Fleet) -> None:
    homes = [await broken.add(f"acme-{number}", version=3) for number in range(4)]
    result, waves = await run(broken)
    assert (result.status, result.done, result.left) == ("halted", 1, 3)
    assert result.reason == f"smoke.sql of version 4 fails in {waves['canary'][0]}: division by zero"
    assert sorted([await broken.version(home) or 0 for home in homes]) == [3, 3, 3, 4]


async def test_a_canary_of_a_tenant_that_may_not_be_called_is_not_called(broken: Fleet) -> None:
    homes = [await broken.add(f"acme-{number}", version=3) for number in range(2)]
    async with broken.admin() as connection:
        await connection.execute("UPDATE tenancy.tenants SET state = 'suspended'")
    result, _ = await run(broken)
    assert (result.status, [await broken.version(home) for home in homes]) == ("done", [4, 4])


async def test_what_smoke_files_write_in_a_canary_is_undone(fleet: Fleet) -> None:
    """Version 3 of the template makes a user and a project in its smoke.sql."""
    home = await fleet.add("acme")
    result, waves = await run(fleet)
    assert (result.status, list(waves)) == ("done", ["canary"])
    async with fleet.admin(home) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        for table in ("tb_user", "tb_project"):
            assert await connection.fetchval(f'SELECT count(*) FROM "{home.schema_name}".{table}') == 0


async def test_a_script_that_fits_no_canary_stops_before_the_rest(fleet: Fleet) -> None:
    homes = [await fleet.add(f"acme-{number}") for number in range(6)]
    for home in homes:
        await add_conflicting_column(fleet, home)
    result, waves = await run(fleet)
    assert (result.status, result.failed, result.left) == ("halted", 1, 5)
    assert result.reason == "no home of the trial took the script from version 1"
    assert list(waves) == ["canary"]


async def test_a_run_ends_when_its_time_is_up(fleet: Fleet) -> None:
    for number in range(4):
        await fleet.add(f"acme-{number}")
    result, _ = await run(fleet, max_seconds=0)
    assert (result.status, result.reason) == ("halted", "its time is up")
    assert result.left > 0
