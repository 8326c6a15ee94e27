"""kill -9 at random moments of a run: nothing half applied, nothing applied twice, and the ledger agrees."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from control_plane.registry.models import Home, Run, RunHome
from control_plane.settings import Settings, shipped
from control_plane.templates import Template, Templates
from tests.conftest import SECRET_KEY
from tests.integration.migrator import migrating
from tests.support.fleet import Fleet
from tests.support.forked import Forked
from tests.support.structure import difference, structure
from tests.support.templates import with_first_versions

SAMPLE = bool(os.environ.get("CP_LONG_SAMPLE"))
HOMES, KILLS = (60, 10) if SAMPLE else (300, 100)
SEED = int(os.environ.get("CP_LONG_SEED", "20261126"))
LONGEST = 0.35  # seconds from the first home to the kill
VERSIONS = 12

# A row for each stamp that was committed, in the transaction of the stamp.
_COUNT = """
CREATE SCHEMA counting;
GRANT USAGE ON SCHEMA counting TO PUBLIC;
CREATE TABLE counting.stamped (home_id uuid NOT NULL, version integer NOT NULL);
CREATE FUNCTION counting.count_stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO counting.stamped VALUES (new.id, new.version);
    RETURN NULL;
END
$$;
GRANT INSERT ON counting.stamped TO PUBLIC;
SET ROLE cp_tenancy;
CREATE TRIGGER stamped AFTER UPDATE OF version ON tenancy.homes FOR EACH ROW EXECUTE FUNCTION counting.count_stamp();
RESET ROLE;
"""


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    whole = settings.model_copy(update={"migrate_concurrency": 4, "templates": shipped("tenant_templates")})
    return with_first_versions(whole, tmp_path / "all", VERSIONS)


@pytest.fixture
def template(settings: Settings) -> Template:
    return Templates.load(settings.templates)["reference"]


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_never_been(
    fleet: Fleet, settings: Settings
) -> None:
    print(f"seed {SEED}: {KILLS} kills, {HOMES} homes")
    moments = random.Random(SEED)
    homes = [await fleet.add(f"acme-{number}") for number in range(HOMES)]
    async with fleet.admin() as admin:
        await admin.execute(_COUNT)

    kills, reached = 0, 1
    while kills < KILLS:
        assert reached < VERSIONS, f"the fleet was through after {kills} kills"
        if await _worked_until(moments.uniform(0, LONGEST), settings, fleet, reached + 1):
            reached += 1
        else:
            kills += 1
    print(f"{kills} kills on the way to version {reached + 1}")
    assert await _worked_until(None, settings, fleet, reached + 1) or reached == VERSIONS
    reached = min(reached + 1, VERSIONS)

    async with fleet.admin() as admin:
        stamps = Counter(map(tuple, await admin.fetch("SELECT home_id, version FROM counting.stamped")))
        expected = {(home.id, version) for home in homes for version in range(2, reached + 1)}
        assert stamps == Counter(expected)
        whole = await structure(admin, (await fleet.add("whole", version=reached)).id)
        for home in homes:
            assert difference(await structure(admin, home.id), whole) == {}
    await _require_true_ledger(fleet, homes, reached)


async def _worked_until(moment: float | None, settings: Settings, fleet: Fleet, target: int) -> bool:
    """Whether a runner came to the end of its run before it was killed, so many seconds after its first home."""
    options = {
        "settings": settings.model_dump(mode="json", exclude={"secret_key", "signing_key"}),
        "registry": fleet.databases.registry_dsn,
        "key": SECRET_KEY,
        "target": target,
    }
    runner = Forked(migrating.main, options)
    if await runner.said() == "working" and moment is not None:
        await asyncio.sleep(moment)
        runner.kill()
    status = await runner.wait()
    assert status in (0, -9), status
    return status == 0


async def _require_true_ledger(fleet: Fleet, homes: list[Home], reached: int) -> None:
    async with fleet.databases.registry() as session:
        runs = (await session.scalars(select(Run).order_by(Run.started_at))).all()
        assert [(run.target, run.status, run.done) for run in runs] == [
            (target, "done", len(homes)) for target in range(2, reached + 1)
        ]
        outcomes = Counter((await session.scalars(select(RunHome.status))).all())
        assert outcomes == {"done": len(homes) * len(runs)}
        copies = {home.id: home.pattern_version for home in await session.scalars(select(Home))}
    assert {copies[home.id] for home in homes} == {reached}
