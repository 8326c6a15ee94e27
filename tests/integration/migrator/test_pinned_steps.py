"""A pinned home finishes what the version that it stays at takes beside its transaction."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from control_plane.settings import Settings
from control_plane.templates import Template, Templates
from control_plane.tenants.pins import pin_tenant
from tests.integration.migrator.runs import run
from tests.integration.migrator.test_steps import stopped_in_backfill
from tests.support.fleet import Fleet
from tests.support.stepped import ROWS, TOUCHES, add, debts, things, with_stepped_template


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_stepped_template(settings, tmp_path / "stepped")


@pytest.fixture
def template(settings: Settings) -> Template:
    return Templates.load(settings.templates)["sample"]


async def pin(fleet: Fleet, version: int) -> None:
    templates, month = Templates({"sample": fleet.template}), timedelta(days=30)
    await pin_tenant(fleet.databases, templates, "acme", version=version, reason="audit", expires=month, actor="tests")


@pytest.mark.parametrize("mode", ["schema", "database"])
async def test_a_pinned_home_takes_the_steps_of_its_version_and_no_more(fleet: Fleet, mode: str) -> None:
    home, other = await add(fleet, "acme", mode), await add(fleet, "other", mode)
    await pin(fleet, 2)
    result, outcomes = await run(fleet)
    assert (result.status, result.done, outcomes["acme"].to_version, outcomes["acme"].reached) == ("done", 2, 2, 2)
    assert [await fleet.version(each) for each in (home, other)] == [2, 4]
    assert await debts(fleet, home) == await debts(fleet, other) == []
    assert await things(fleet, home, "touched") == [TOUCHES] * ROWS


async def test_a_home_that_is_pinned_in_the_middle_of_a_backfill_finishes_it(fleet: Fleet) -> None:
    home = await add(fleet, "acme")
    await stopped_in_backfill(fleet)
    assert [step for _, step, *_ in await debts(fleet, home)] == ["backfill"]
    await pin(fleet, 2)
    result, outcomes = await run(fleet)
    assert (result.status, outcomes["acme"].status, outcomes["acme"].reached) == ("done", "done", 2)
    assert "version 2 goes on after its transaction" not in str(result.plan)
    assert (await fleet.version(home), await debts(fleet, home)) == (2, [])
    assert await things(fleet, home, "touched") == [TOUCHES] * ROWS
    assert (await run(fleet))[1] == {}
