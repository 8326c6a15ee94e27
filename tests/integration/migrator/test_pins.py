"""Pinned tenants: no run takes them past their version, and none fails because of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update

from control_plane.errors import (
    BelowMinimum,
    ControlPlaneError,
    InvalidInput,
    InvalidTransition,
    NotPinnable,
    PinNotFound,
    TemplateNotFound,
    TenantNotFound,
    TenantPinned,
    VersionConflict,
)
from control_plane.migrator import Event, HomeResult, Options, Policy, Waiting, migrate_all, operators, plan_migration
from control_plane.migrator.documents import plan_document
from control_plane.migrator.policy import WavePolicy
from control_plane.registry import template_versions
from control_plane.registry.models import AuditEvent, Pin, RunHome, Tenant
from control_plane.settings import Settings
from control_plane.templates import Templates
from control_plane.tenants.pins import PinRecord, get_pin, list_pins, pin_tenant, unpin_tenant
from tests.integration.migrator.runs import run
from tests.integration.migrator.test_contracts import DROP, release, take_away
from tests.support.fleet import Fleet

DEDICATED = ("schema", "database")
MONTH = timedelta(days=30)


async def pin(fleet: Fleet, slug: str, version: int | None = None, **options: object) -> PinRecord:
    given = {"reason": "in the middle of its audit", "expires": MONTH, "actor": "ann"} | options
    templates = Templates({fleet.template.name: fleet.template})
    return await pin_tenant(fleet.databases, templates, slug, version=version, **given)  # type: ignore[arg-type]


async def expire(fleet: Fleet) -> None:
    async with fleet.databases.registry.begin() as session:
        await session.execute(update(Pin).values(expires_at=func.now()))


@pytest.mark.parametrize("mode", DEDICATED)
async def test_a_pinned_home_is_brought_up_to_its_pin_and_no_further(fleet: Fleet, mode: str) -> None:
    home, other = await fleet.add("acme", mode), await fleet.add("other", mode)
    common = await fleet.add("common", "shared")
    await pin(fleet, "acme", 2)

    plan = await plan_migration(fleet.databases, fleet.template, Options())
    assert {(group.from_version, group.to_version, group.isolation) for group in plan.groups} == {
        (1, 2, mode),
        (1, 3, mode),
        (1, 3, "shared"),
    }
    (listed,) = plan.pinned
    assert (listed.tenant, listed.version, listed.pin) == ("acme", 1, 2)
    (document,) = plan_document(plan)["pinned"]
    assert (document["tenant"], document["pin"], document["reason"]) == ("acme", 2, "in the middle of its audit")
    assert datetime.fromisoformat(document["expires_at"]) == listed.expires_at

    result, outcomes = await run(fleet)
    assert (result.status, result.done, [each.tenant for each in result.plan.pinned]) == ("done", 3, ["acme"])
    assert {outcome.to_version for outcome in outcomes.values()} == {2, 3}
    assert [await fleet.version(each) for each in (home, other, common)] == [2, 3, 3]
    assert await fleet.copied_version(home) == 2
    async with fleet.databases.registry() as session:
        row = (await session.scalars(select(RunHome).where(RunHome.home_id == home.id))).one()
        assert (row.status, row.to_version) == ("done", 2)

    result, outcomes = await run(fleet)
    assert (result.status, outcomes, [each.pin for each in result.plan.pinned]) == ("done", {}, [2])
    await expire(fleet)
    result, outcomes = await run(fleet)
    assert (result.status, list(outcomes), result.plan.pinned) == ("done", ["acme"], ())
    assert await fleet.version(home) == 3


async def test_a_pin_that_is_no_obstacle_is_not_told(fleet: Fleet) -> None:
    home = await fleet.add("acme")
    await pin(fleet, "acme", 3)
    result, _ = await run(fleet)
    assert (result.done, result.plan.pinned, await fleet.version(home)) == (1, (), 3)


async def test_a_pinned_tenant_cannot_be_named_alone(fleet: Fleet) -> None:
    home = await fleet.add("acme")
    record = await pin(fleet, "acme", 2)
    with pytest.raises(TenantPinned) as refused:
        await run(fleet, only=["acme"])
    until = f"{record.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    assert refused.value.message == (
        f"acme is pinned to version 2 until {until}: in the middle of its audit (the target is version 3)."
    )
    assert "cp fleet unpin acme" in str(refused.value.hint)
    assert (await run(fleet, 2, only=["acme"]))[0].done == 1
    await unpin_tenant(fleet.databases, "acme", actor="bob")
    assert (await run(fleet, only=["acme"]))[0].done == 1
    assert await fleet.version(home) == 3


async def test_a_run_that_is_under_way_heeds_a_new_pin(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.migrator.lease.SECONDS", 0.02)
    homes = {f"acme-{number}": await fleet.add(f"acme-{number}") for number in range(3)}
    events: list[Event] = []
    small = Policy(waves=WavePolicy(canaries=1, shares=(), largest=0))
    running = asyncio.create_task(
        migrate_all(fleet.databases, fleet.template, Options(policy=small, approve=True), listener=events.append)
    )
    while not any(isinstance(event, Waiting) for event in events):
        assert not running.done(), await running
        await asyncio.sleep(0.005)
    (canary,) = (event.label for event in events if isinstance(event, HomeResult))
    late, free = sorted(homes.keys() - {canary})
    await pin(fleet, late)
    await operators.go_on(fleet.databases, "last", actor="tests")
    result = await running
    assert (result.status, result.done, result.skipped) == ("done", 2, 1)
    assert [await fleet.version(homes[slug]) for slug in (canary, late, free)] == [3, 1, 3]
    skipped = next(event for event in events if isinstance(event, HomeResult) and event.status == "skipped")
    assert (skipped.label, skipped.error) == (late, "its tenant was pinned to version 1 meanwhile")


async def test_what_is_tried_in_a_canary_is_the_version_that_it_gets(fleet: Fleet) -> None:
    """smoke.sql of the target would fail in a home that is pinned before it."""
    home = await fleet.add("acme")
    await pin(fleet, "acme", 2)
    result, _ = await run(fleet)
    assert (result.status, result.reason, await fleet.version(home)) == ("done", None, 2)


@pytest.mark.parametrize("mode", DEDICATED)
async def test_a_contract_names_the_pinned_tenant_that_it_waits_for(
    fleet: Fleet, settings: Settings, tmp_path: Path, mode: str
) -> None:
    home = await fleet.add("acme", mode, version=2)
    await fleet.add("there", version=3)
    await pin(fleet, "acme", 2)
    await release(fleet, 3)
    take_away(fleet, settings, tmp_path / "next", DROP)
    with pytest.raises(BelowMinimum) as refused:
        await run(fleet, 4)
    assert "below version 3: acme (pinned to version 2 until" in refused.value.message
    assert "cp fleet unpin acme" in str(refused.value.hint)
    await pin(fleet, "acme", 3)
    assert (await run(fleet, 3))[0].status == "done"
    assert (await run(fleet, 4))[0].status == "done"
    assert await fleet.version(home) == 3, "it has what replaces what goes, and stays before the removal"


async def test_pins_are_shown_replaced_taken_away_and_audited(fleet: Fleet) -> None:
    await fleet.add("acme", version=2)
    first = await pin(fleet, "acme")
    assert (first.version, first.at, first.cluster, first.isolation) == (2, 2, "main", "schema")
    second = await pin(fleet, "acme", 3, expires=datetime.now(UTC) + MONTH, reason="asked for it")
    assert await list_pins(fleet.databases) == [second] == [await get_pin(fleet.databases, "acme")]
    assert (second.version, second.reason, second.actor) == (3, "asked for it", "ann")
    await unpin_tenant(fleet.databases, "acme", actor="bob")
    assert await list_pins(fleet.databases) == []
    for attempt in (get_pin(fleet.databases, "acme"), unpin_tenant(fleet.databases, "acme", actor="bob")):
        with pytest.raises(PinNotFound):
            await attempt
    async with fleet.databases.registry() as session:
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
    assert [(event.actor, event.action) for event in events] == [
        ("ann", "tenant.pin"),
        ("ann", "tenant.pin"),
        ("bob", "tenant.unpin"),
    ]
    assert (events[1].details["version"], events[1].details["reason"]) == (3, "asked for it")


async def test_a_pin_that_has_expired_is_none(fleet: Fleet) -> None:
    await fleet.add("acme", version=2)
    await pin(fleet, "acme")
    await expire(fleet)
    assert await list_pins(fleet.databases) == []
    with pytest.raises(PinNotFound):
        await unpin_tenant(fleet.databases, "acme", actor="bob")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"version": 1}, VersionConflict),
        ({"version": 9}, TemplateNotFound),
        ({"expires": timedelta(days=180, seconds=1)}, InvalidInput),
        ({"expires": timedelta(days=10**8)}, InvalidInput),
        ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, InvalidInput),
        ({"expires": datetime(2020, 1, 1)}, InvalidInput),  # noqa: DTZ001
        ({"reason": " "}, InvalidInput),
        ({"reason": "a\nb"}, InvalidInput),
        ({"reason": "a" * 501}, InvalidInput),
    ],
)
async def test_a_pin_needs_a_version_a_reason_and_an_end(
    fleet: Fleet, options: dict[str, object], error: type[ControlPlaneError]
) -> None:
    await fleet.add("acme", version=2)
    with pytest.raises(error):
        await pin(fleet, "acme", **options)  # type: ignore[arg-type]
    assert await list_pins(fleet.databases) == []
    await pin(fleet, "acme", expires=timedelta(days=180))


async def test_only_tenants_with_a_home_of_their_own_can_be_pinned(fleet: Fleet) -> None:
    await fleet.add("common", "shared")
    await fleet.add("leaving")
    async with fleet.databases.registry.begin() as session:
        await session.execute(update(Tenant).where(Tenant.slug == "leaving").values(status="deleting"))
    refusals = {"common": NotPinnable, "leaving": InvalidTransition, "nobody": TenantNotFound}
    for slug, error in refusals.items():
        with pytest.raises(error):
            await pin(fleet, slug)


async def test_new_tenants_are_none_of_a_pin_s_business(fleet: Fleet) -> None:
    await fleet.add("acme")
    await pin(fleet, "acme", 2)
    await run(fleet)
    async with fleet.databases.registry() as session:
        assert await template_versions.current(session, fleet.template) == 3
        assert (await session.execute(text("SELECT count(*) FROM pins"))).scalar_one() == 1
