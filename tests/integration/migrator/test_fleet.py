"""The view of the whole fleet: what is behind, what failed, what is pinned and what did not answer."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from control_plane.migrator.fleet import fleet_standing
from control_plane.registry import template_versions
from control_plane.registry.models import Home
from control_plane.templates import Templates
from control_plane.tenants.pins import pin_tenant
from tests.integration.migrator.runs import add_conflicting_column, run
from tests.support.fleet import Fleet


async def test_the_view_of_a_fleet_says_what_is_behind_and_why(fleet: Fleet) -> None:
    for slug, mode, version in (("one", "schema", 1), ("two", "schema", 2), ("three", "database", 3)):
        await fleet.add(slug, mode, version)
    for slug in ("four", "five"):
        await fleet.add(slug, "shared", 2)
    async with fleet.databases.registry.begin() as session:
        await template_versions.release(session, fleet.template, 3)
    found = await fleet_standing(fleet.databases)
    assert {
        skew.isolation: (skew.cluster, skew.template, skew.target, skew.oldest, skew.behind, skew.homes, skew.tenants)
        for skew in found.skews
    } == {
        "database": ("main", "reference", 3, 3, 0, 1, 1),
        "schema": ("main", "reference", 3, 1, 2, 2, 2),
        "shared": ("main", "reference", 3, 2, 1, 1, 2),
    }
    assert [(count.isolation, count.version, count.homes) for skew in found.skews for count in skew.at] == [
        (count.isolation, count.version, count.homes) for count in found.versions
    ]
    assert (found.failed, found.pinned, found.unreached) == ([], [], [])
    assert (await fleet_standing(fleet.databases, "other")).skews == []


async def test_failed_homes_are_those_of_the_latest_run(fleet: Fleet) -> None:
    for slug in ("bad", "worse"):
        await add_conflicting_column(fleet, await fleet.add(slug))
    await fleet.add("good")
    result, _ = await run(fleet)
    found = await fleet_standing(fleet.databases)
    assert [(home.run_id, home.tenant, home.sqlstate) for home in found.failed] == [
        (result.run_id, "bad", "42701"),
        (result.run_id, "worse", "42701"),
    ]
    await run(fleet, only=["worse"])
    assert [home.tenant for home in (await fleet_standing(fleet.databases)).failed] == ["worse"]
    assert (await fleet_standing(fleet.databases, "other")).failed == []


async def test_pinned_tenants_and_databases_that_do_not_answer_are_named(fleet: Fleet) -> None:
    await fleet.add("acme", version=2)
    templates = Templates({"reference": fleet.template})
    await pin_tenant(fleet.databases, templates, "acme", reason="audit", expires=timedelta(days=1), actor="ann")
    async with fleet.databases.registry.begin() as session:
        session.add(
            Home(
                id=uuid4(),
                cluster_id=fleet.cluster.id,
                isolation="database",
                template="reference",
                database="t_000000000000",
                schema_name="t_000000000000",
                role_name=f"lost_{uuid4().hex[:8]}",
                password=b"",
                ready=True,
            )
        )
    found = await fleet_standing(fleet.databases)
    assert [(pin.tenant, pin.version, pin.at, pin.reason) for pin in found.pinned] == [("acme", 2, 2, "audit")]
    assert [each.place.database for each in found.unreached] == ["t_000000000000"]
    assert [skew.isolation for skew in found.skews] == ["schema"]
