"""`control-plane deprecations` and the override of a sunset, as processes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from control_plane.pools.databases import Databases
from control_plane.registry import deprecated_calls, template_versions
from control_plane.registry.deprecated_calls import Called
from control_plane.registry.models import AuditEvent, Cluster
from control_plane.settings import Settings
from control_plane.templates import Templates
from tests.acceptance.test_migrate_command import call
from tests.conformance.patterns.test_02_deprecation import WITHOUT_USERNAME
from tests.support.fleet import Fleet
from tests.support.templates import with_next_version

TODAY = datetime.now(UTC).date()
FUTURE = TODAY + timedelta(days=9)


@pytest.fixture
def fleet(databases: Databases, cluster: Cluster, installation_id: UUID, settings: Settings, tmp_path: Path) -> Fleet:
    dates = "announced = 2026-11-22\nsunset = 2027-06-30"
    edits = {dates: f"announced = 2026-01-01\nsunset = {FUTURE}\nremoved_in = 4"}
    files = {"api_v2.sql": WITHOUT_USERNAME, "smoke.sql": "SELECT data FROM users;"}
    databases.settings = with_next_version(settings, tmp_path / "templates", "end", files, edits)
    return Fleet(databases, cluster, installation_id, Templates.load(databases.settings.templates)["reference"])


async def test_the_register_is_listed_with_who_still_calls(fleet: Fleet) -> None:
    async with fleet.databases.registry.begin() as session:
        for tenant, calls in ((uuid4(), 2), (uuid4(), 5)):
            await deprecated_calls.add(session, {Called(TODAY, tenant, "reference", 2, "users"): calls})
    code, out, err = await call(fleet, "deprecations", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == [
        {
            "template": "reference", "api": 2, "resource": "users", "field": "username", "replacement": "name",
            "since": 3, "announced": "2026-01-01", "sunset": str(FUTURE), "removed_in": 4, "tenants": 2, "calls": 7,
        }
    ]  # fmt: skip
    code, out, _ = await call(fleet, "deprecations", "--template", "reference")
    assert code == 0
    head, row = out.splitlines()
    assert head.split() == [
        "template", "api", "resource", "field", "replacement", "since", "sunset", "removed_in", "tenants", "calls"
    ]  # fmt: skip
    assert row.split() == ["reference", "2", "users", "username", "name", "3", str(FUTURE), "4", "2", "7"]
    assert (await call(fleet, "deprecations", "--template", "nothing"))[0] == 2


async def test_a_removal_before_its_sunset_needs_a_reason(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=3)
    async with fleet.databases.registry.begin() as session:
        await template_versions.release(session, fleet.template, 3)
    for arguments in ((), ("--plan",), ("--override-sunset", " ")):
        code, _, err = await call(fleet, "migrate-all", *arguments)
        assert code == 2
        assert "--override-sunset" in err
    assert await fleet.version(home) == 3
    code, out, _ = await call(fleet, "migrate-all", "--override-sunset", "nobody reads it")
    assert code == 0
    assert "done: 1 homes migrated to version 4" in out
    async with fleet.databases.registry() as session:
        (event,) = (await session.scalars(select(AuditEvent))).all()
    assert (event.actor, event.details["reason"]) == ("cli", "nobody reads it")
