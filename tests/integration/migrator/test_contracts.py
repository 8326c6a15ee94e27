"""What takes something away is refused while somebody may still use it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.errors import BelowMinimum, TemplateRefused
from control_plane.migrator import Options, migrate_all, plan_migration
from control_plane.migrator.plan import Unreached
from control_plane.migrator.removals import require_minimum
from control_plane.registry import template_versions
from control_plane.registry.models import Home
from control_plane.settings import Settings
from control_plane.templates import Templates
from tests.integration.migrator.runs import MODES, run
from tests.support.fleet import Fleet
from tests.support.templates import with_next_version

WAIVER = "-- lint: allow contract-unannounced because no API version shows it\n"
DROP = WAIVER + "ALTER TABLE tb_project_member DROP COLUMN created_at;\n"


async def release(fleet: Fleet, version: int) -> None:
    async with fleet.databases.registry.begin() as session:
        await template_versions.release(session, fleet.template, version)


def take_away(fleet: Fleet, settings: Settings, directory: Path, sql: str) -> None:
    """The fleet's template with a version 4 that is a contract."""
    cut = with_next_version(settings, directory, "contract", {"contract.sql": sql}, {})
    fleet.template = Templates.load(cut.templates)["reference"]


async def has_column(fleet: Fleet, home: Home) -> bool:
    async with fleet.admin(home) as connection:
        return bool(
            await connection.fetchval(
                "SELECT true FROM pg_attribute WHERE attrelid = $1::regclass AND attname = 'created_at'",
                f'"{home.schema_name}".tb_project_member',
            )
        )


@pytest.mark.parametrize("mode", MODES)
async def test_a_contract_waits_until_every_tenant_has_the_version_before_it(
    fleet: Fleet, settings: Settings, tmp_path: Path, mode: str
) -> None:
    behind, there = await fleet.add("behind", mode, version=2), await fleet.add("there", "schema", version=3)
    await release(fleet, 3)
    take_away(fleet, settings, tmp_path / "next", DROP)
    label = "shared home of 1 tenants" if mode == "shared" else "behind"
    message = (
        "Version 4 of template 'reference' takes away what earlier versions use, and not every home is at version 3: "
        f"below version 3: {label}."
    )
    for attempt in (plan_migration, migrate_all):
        with pytest.raises(BelowMinimum) as refused:
            await attempt(fleet.databases, fleet.template, Options())
        assert refused.value.message == message
        assert refused.value.hint == "Run cp migrate-all --to 3, deploy what reads the new shape, and come back."
    assert [await fleet.version(home) for home in (behind, there)] == [2, 3]

    assert (await run(fleet, 3))[0].status == "done"
    assert (await run(fleet, 4))[0].done == 2
    assert not await has_column(fleet, behind)
    late = await fleet.add("late", version=2)
    assert (await run(fleet, 4))[0].done == 1, "what was begun goes on, also for who comes late"
    assert not await has_column(fleet, late)


async def test_a_contract_waits_for_a_database_that_does_not_answer(
    fleet: Fleet, settings: Settings, tmp_path: Path
) -> None:
    await fleet.add("acme", version=3)
    await release(fleet, 3)
    take_away(fleet, settings, tmp_path / "next", DROP)
    plan = await plan_migration(fleet.databases, fleet.template, Options())
    silent = Unreached(plan.homes[0].place, "connection refused")
    with pytest.raises(BelowMinimum, match=f"at version 3: not reached: main, database {silent.place.database}"):
        require_minimum(fleet.template, 3, replace(plan, unreached=(silent,)))
    require_minimum(fleet.template, 4, replace(plan, unreached=(silent,)))


async def test_a_contract_is_refused_before_any_home_while_a_view_of_the_template_reads_it(
    fleet: Fleet, settings: Settings, tmp_path: Path
) -> None:
    home = await fleet.add("acme", version=3)
    await release(fleet, 3)
    take_away(fleet, settings, tmp_path / "next", WAIVER + "ALTER TABLE tb_project DROP COLUMN description;\n")
    with pytest.raises(TemplateRefused) as refused:
        await run(fleet, 4)
    (error,) = refused.value.errors
    assert (error["place"], error["rule"]) == ("0004_contract/contract.sql:1", "contract-dependents")
    assert "view v_project depends on column description of table tb_project" in error["problem"]
    assert await fleet.version(home) == 3


@pytest.mark.parametrize("mode", MODES)
async def test_a_home_that_has_more_views_than_the_template_refuses_for_itself(
    fleet: Fleet, settings: Settings, tmp_path: Path, mode: str
) -> None:
    home, other = await fleet.add("acme", mode, version=3), await fleet.add("other", "database", version=3)
    await release(fleet, 3)
    async with fleet.admin(home) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        await connection.execute(
            f'CREATE VIEW "{home.schema_name}".v_own WITH (security_invoker = true) AS '
            f'SELECT tenant_id, created_at FROM "{home.schema_name}".tb_project_member'
        )
    take_away(fleet, settings, tmp_path / "next", DROP)
    result, outcomes = await run(fleet, 4)
    assert (result.done, result.failed) == (1, 1)
    (failed,) = (outcome for outcome in outcomes.values() if outcome.status == "failed")
    assert (failed.home_id, failed.sqlstate) == (home.id, "2BP01")
    assert "v_own depends on column created_at" in str(failed.error)
    assert await has_column(fleet, home)
    assert not await has_column(fleet, other)
