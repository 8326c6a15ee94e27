"""What a migration plans, and what it refuses before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import select

from control_plane.errors import TemplateChanged, TemplateNotFound, VersionConflict
from control_plane.migrator import HomeResult, Options, plan_migration
from control_plane.migrator.job import Job
from control_plane.migrator.lane import Lane
from control_plane.migrator.plan import make_plan
from control_plane.migrator.reins import Reins
from control_plane.registry import template_versions
from control_plane.registry.models import Run
from control_plane.templates import Templates
from tests.integration.migrator.runs import MODES, run
from tests.support.fleet import Fleet


async def test_a_plan_names_the_work_and_changes_nothing(fleet: Fleet) -> None:
    homes = [await fleet.add(f"acme-{mode}", mode) for mode in MODES]
    await fleet.add("second", "shared")
    plan = await plan_migration(fleet.databases, fleet.template, Options())
    assert {(group.isolation, group.from_version, group.homes, group.tenants) for group in plan.groups} == {
        ("shared", 1, 1, 2),
        ("schema", 1, 1, 1),
        ("database", 1, 1, 1),
    }
    assert [await fleet.version(home) for home in homes] == [1, 1, 1]
    async with fleet.databases.registry() as session:
        assert await template_versions.current(session, fleet.template) is None
        assert (await session.scalars(select(Run))).all() == []


async def test_homes_that_changed_since_the_plan_are_looked_at_again(fleet: Fleet) -> None:
    homes = {slug: await fleet.add(slug) for slug in ("untouched", "ahead", "there", "gone")}
    plan = await make_plan(fleet.databases, fleet.template, 3)
    await run(fleet, 2, only=["ahead"])
    await run(fleet, 3, only=["there"])
    async with fleet.admin() as connection:
        await connection.execute("SELECT tenancy.drop_home($1)", homes["gone"].id)
    outcomes: dict[str, HomeResult] = {}
    job = Job(fleet.databases, fleet.template, 3, Reins(), lambda outcome: outcomes.update({outcome.label: outcome}))
    await Lane(job, fleet.cluster, plan.homes, 2).run()
    assert {label: outcome.status for label, outcome in outcomes.items()} == {
        "untouched": "done",
        "ahead": "done",
        "there": "done",
        "gone": "skipped",
    }
    assert [await fleet.version(homes[slug]) for slug in homes] == [3, 3, 3, None]


async def test_a_template_that_changed_after_its_release_is_refused_before_anything_runs(
    fleet: Fleet, tmp_path: Path
) -> None:
    home = await fleet.add("acme")
    async with fleet.databases.registry.begin() as session:
        await template_versions.release(session, fleet.template, 2)
    shutil.copytree(fleet.databases.settings.templates, tmp_path / "changed")
    with (tmp_path / "changed/reference/versions/0002_profiles/expand.sql").open("a") as file:
        file.write("-- one more line\n")
    fleet.template = Templates.load(tmp_path / "changed")["reference"]
    with pytest.raises(TemplateChanged):
        await run(fleet)
    with pytest.raises(TemplateChanged):
        await plan_migration(fleet.databases, fleet.template, Options())
    assert await fleet.version(home) == 1


async def test_a_version_that_lies_behind_is_refused_and_homes_past_it_are_left(fleet: Fleet) -> None:
    ahead = await fleet.add("ahead", version=3)
    with pytest.raises(VersionConflict):
        await run(fleet, 2)
    behind = await fleet.add("behind", version=1)
    result, outcomes = await run(fleet, 2)
    assert (result.status, list(outcomes), result.plan.ahead) == ("done", ["behind"], 1)
    assert (await fleet.version(ahead), await fleet.version(behind)) == (3, 2)
    with pytest.raises(TemplateNotFound):
        await run(fleet, 4)
