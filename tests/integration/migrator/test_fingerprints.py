"""`cp doctor` sees each way in which a home is not what its version would build, in every mode, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import update

from control_plane.isolation import isolation_of
from control_plane.isolation.cluster import create_database
from control_plane.migrator import comparison, fingerprints
from control_plane.migrator.comparison import Comparison, compare
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home
from control_plane.templates import Template
from tests.integration.migrator.runs import MODES, holding
from tests.support.drift import drift, drifts, one_of_each, told
from tests.support.fleet import Fleet

SCRATCH = "SELECT count(*) FROM pg_database WHERE datname LIKE '%\\_scratch\\_%'"


@pytest.fixture
def template(tmp_path: Path) -> Template:
    return one_of_each(tmp_path / "sample-templates")


async def compared(fleet: Fleet) -> Comparison:
    return await compare(fleet.databases, {fleet.template.name: fleet.template})


def by_home(found: Comparison) -> dict[UUID, set[tuple[str, str, str, str | None]]]:
    return {each.home.home_id: told(each.differences) for each in found.differing}


async def test_homes_are_equal_however_they_came_to_their_version(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their hashes are: no home is looked at by itself."""
    monkeypatch.delattr(comparison, "read_structure")
    for mode in MODES:
        home = await fleet.add(f"old-{mode}", mode, version=1)
        await isolation_of(mode).upgrade(fleet.databases, fleet.cluster, home, fleet.template, 1, 2)
    for mode in ("schema", "database"):
        await fleet.add(f"new-{mode}", mode, version=2)
        await fleet.add(f"behind-{mode}", mode, version=1)
    found = await compared(fleet)
    assert by_home(found) == {}
    assert (found.compared, found.uncompared, found.unreached) == (7, [], [])
    assert (await compare(fleet.databases, {}, leave_out={"main"})).uncompared == []
    async with fleet.admin() as connection:
        assert await connection.fetchval(SCRATCH) == 0


@pytest.mark.parametrize("mode", MODES)
async def test_all_that_was_done_to_a_home_is_told_and_nothing_of_its_twin(fleet: Fleet, mode: str) -> None:
    home = await fleet.add("acme", mode, version=2)
    if mode != "shared":
        await fleet.add("twin", mode, version=2)
    done = drifts(mode)
    await drift(fleet, home, *done)
    assert by_home(await compared(fleet)) == {home.id: set().union(*done.values())}


async def test_a_difference_is_told_with_what_was_expected_and_found(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=2)
    await drift(
        fleet,
        home,
        "ALTER TABLE {s}.tb_thing ALTER COLUMN label TYPE text",
        "CREATE TABLE {s}.tb_extra (tenant_id uuid)",
        "ALTER TABLE {s}.tb_part ADD CONSTRAINT mine CHECK (thing_id <> id)",
        "DROP SCHEMA {s}__api CASCADE",
    )
    (differing,) = (await compared(fleet)).differing
    assert [str(each) for each in differing.differences] == [
        "the column tb_thing.label: type is text, not <home>.short",
        "the constraint tb_part.mine is not in the template",
        "the schema api is missing",
        "the table tb_extra is not in the template",
    ]
    changed = differing.differences[0].document()
    assert changed == {
        "kind": "column",
        "object": "tb_thing.label",
        "problem": "different",
        "aspect": "type",
        "expected": "<home>.short",
        "found": "text",
    }


async def test_a_column_that_was_put_back_is_the_last_one_and_that_does_no_harm(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=2)
    await drift(
        fleet,
        home,
        "ALTER TABLE {s}.tb_thing DROP COLUMN label; ALTER TABLE {s}.tb_thing ADD COLUMN label {s}.short",
        "CREATE UNIQUE INDEX tb_thing_by_label ON {s}.tb_thing (tenant_id, label)",
    )
    (differing,) = (await compared(fleet)).differing
    assert told(differing.differences) == {("table", "tb_thing", "different", "order of columns")}
    assert differing.harmless


async def test_many_homes_are_read_at_once_and_alike_ones_are_told_apart(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = [await fleet.add(f"acme-{number}", version=2) for number in range(5)]
    await drift(fleet, homes[1], "DROP INDEX {s}.tb_thing_by_name")
    await drift(fleet, homes[3], "DROP INDEX {s}.tb_thing_by_name")
    await drift(fleet, homes[4], "DROP INDEX {s}.tb_thing_by_label")
    monkeypatch.setattr(fingerprints, "_BATCH", 2)
    progress: list[tuple[int, int, int]] = []
    found = await compare(fleet.databases, {"sample": fleet.template}, progress=lambda *said: progress.append(said))
    assert {home: {each[1] for each in ways} for home, ways in by_home(found).items()} == {
        homes[1].id: {"tb_thing_by_name"},
        homes[3].id: {"tb_thing_by_name"},
        homes[4].id: {"tb_thing_by_label"},
    }
    assert found.compared == 5
    assert progress == [(2, 0, 1), (4, 0, 1), (5, 0, 1), (5, 1, 1)]


async def test_a_home_whose_tables_are_locked_is_not_compared_and_all_others_are(fleet: Fleet) -> None:
    fleet.databases.settings = fleet.databases.settings.model_copy(update={"lock_timeout": 0.02})
    homes = [await fleet.add(f"acme-{number}", version=2) for number in range(3)]
    async with holding(fleet, homes[1], 'LOCK TABLE "{schema}".tb_thing'):
        found = await compared(fleet)
    (unknown,) = found.uncompared
    assert (unknown.home.home_id, found.compared, found.differing) == (homes[1].id, 2, [])


async def test_what_this_release_does_not_know_is_no_fault(fleet: Fleet, tmp_path: Path) -> None:
    await fleet.add("acme", version=2)
    older = Template(fleet.template.manifest, fleet.template.versions[:1])
    for templates in ({"sample": older}, {}):
        found = await compare(fleet.databases, templates)
        assert [each.expected for each in found.uncompared] == [True]
        assert (found.compared, found.differing) == (0, [])


async def test_a_database_that_does_not_answer_is_named(fleet: Fleet) -> None:
    await fleet.add("acme", version=2)
    lost = await fleet.add("lost", "database", version=2)
    async with fleet.databases.registry.begin() as session:
        await session.execute(update(Home).where(Home.id == lost.id).values(database="t_000000000000"))
    found = await compared(fleet)
    assert [each.place.database for each in found.unreached] == ["t_000000000000"]
    assert found.compared == 1


async def test_no_scratch_database_outlives_a_comparison_that_is_cancelled_or_was_killed(
    fleet: Fleet, databases: Databases, cluster: Cluster
) -> None:
    await fleet.add("acme", version=2)
    async with fleet.admin() as connection:
        await create_database(connection, cluster.database.replace("_tenants", "_scratch_killed"))
        running = asyncio.create_task(compared(fleet))
        while (
            await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE '%\\_scratch\\_%'") == 0
        ):
            await asyncio.sleep(0.002)  # the database sends no event
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await connection.fetchval(SCRATCH) == 0
