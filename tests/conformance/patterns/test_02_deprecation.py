"""Pattern 2, field deprecation: version 3 announces that `username` goes, and serves it beside `name` until then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from control_plane.api.tenant_paths import add_tenant_paths
from control_plane.errors import BeforeSunset, ClusterUnavailable, TemplateRefused
from control_plane.migrator import Options, deprecations, migrate_all, plan_migration
from control_plane.pools.databases import Databases
from control_plane.pools.deprecated_calls import DeprecatedCalls
from control_plane.registry import deprecated_calls, template_versions
from control_plane.registry.deprecated_calls import Called
from control_plane.registry.models import AuditEvent, Cluster, DeprecatedCall
from control_plane.settings import Settings
from control_plane.templates import Templates
from tests.conformance.conftest import Ground
from tests.conformance.world import World
from tests.support.fleet import Fleet
from tests.support.members import Members
from tests.support.templates import with_next_version
from tests.support.tenant_calls import TenantCalls, principal, tenant_calls

TODAY = datetime.now(UTC).date()
PAST, FUTURE = TODAY - timedelta(days=1), TODAY + timedelta(days=200)

# What a version that removes `username` looks like.
WITHOUT_USERNAME = """
CREATE OR REPLACE VIEW users WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    email,
    created_at,
    data - ARRAY['username', 'bio', 'avatar_url', 'settings'] || jsonb_build_object(
        'profile', jsonb_build_object('bio', data -> 'bio', 'avatarUrl', data -> 'avatar_url')
    ) AS data
FROM v_user;
"""


def removing(settings: Settings, into: Path, sunset: date) -> Settings:
    """A template whose version 4 takes `username` away, promised until `sunset`."""
    dates = "announced = 2026-11-22\nsunset = 2027-06-30"
    promised = f"announced = 2026-01-01\nsunset = {sunset}\nremoved_in = 4"
    return with_next_version(settings, into, "no_username", {"api_v2.sql": WITHOUT_USERNAME}, {dates: promised})


def deprecating(settings: Settings, into: Path, **entry: object) -> Settings:
    """A template whose version 4 deprecates something more."""
    lines = [f"{key} = {json.dumps(value) if isinstance(value, str) else value}" for key, value in entry.items()]
    text = "\n".join(["[[deprecations]]", *lines, "since = 4", "announced = 2026-03-01", f"sunset = {FUTURE}"])
    return with_next_version(settings, into, "announcement", {"smoke.sql": "SELECT 1;"}, {"": text})


def members_of(databases: Databases, settings: Settings, cluster: Cluster, installation_id: UUID) -> Members:
    databases.settings = settings
    return Members(databases, cluster, installation_id)


async def register(world: World, member: str = "a") -> list[tuple[Any, ...]]:
    """What tenancy.deprecations() answers a request."""
    async with world.within(getattr(world, member)) as connection:
        return [tuple(row) for row in await connection.fetch("SELECT * FROM tenancy.deprecations()")]


async def upgrade(world: World, start: int, end: int) -> None:
    async with world.admin(world.a) as connection:
        await connection.execute(world.template.script(start, end).message(world.a.home.id, world.a.schema, 2))


async def documents(world: World, view: str) -> list[dict[str, Any]]:
    async with world.within(world.a) as connection:
        path = f'"{world.a.schema}__api_v2", "{world.a.schema}", pg_temp'
        await connection.execute(f"SET LOCAL search_path = {path}")
        return [json.loads(row["data"]) for row in await connection.fetch(f"SELECT data FROM {view} ORDER BY id")]


async def test_the_register_is_what_the_template_declares(ground: Ground, mode: str) -> None:
    """Requirement 1, check 2.2: nothing before the version that announces it, then one row with every fact."""
    world = await ground.world(mode, version=2)
    assert await register(world) == []
    await upgrade(world, 2, 3)
    (row,) = await register(world)
    assert row == (2, "users", "username", "name", 3, date(2026, 11, 22), date(2027, 6, 30), None, False)


async def test_the_register_at_the_latest_version_has_all_entries_and_no_others(world: World) -> None:
    """Requirement 1: for both tenants alike."""
    declared = {
        (entry.api, entry.resource, entry.field, entry.replacement, entry.since, entry.sunset)
        for entry in world.template.manifest.deprecations
    }
    for member in ("a", "b"):
        rows = await register(world, member)
        assert len(rows) == len(declared)
        assert {(*row[:5], row[6]) for row in rows} == declared


async def test_nothing_of_it_stands_in_the_rows(world: World) -> None:
    """Requirement 1: a document bears no notice, and the catalogue no comment that would outlive the field."""
    for document in await documents(world, "users"):
        assert not {key for key in document if "deprecat" in key.lower()}
    async with world.admin(world.a) as connection:
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM pg_description WHERE description ILIKE '%deprecat%' AND objoid >= 16384"
            )
            == 0
        )


@pytest.mark.parametrize(
    ("entry", "paths"),
    [
        ({"api": 1, "resource": "projects"}, {"/api/v1/projects": True, "/api/v2/projects": False}),
        ({"api": 1}, {"/api/v1/projects": True, "/api/v1/users": True, "/api/v2/users": False}),
    ],
    ids=["resource", "API version"],
)
async def test_answers_of_what_is_deprecated_say_so_in_their_head(
    databases: Databases,
    cluster: Cluster,
    installation_id: UUID,
    tmp_path: Path,
    entry: Mapping[str, object],
    paths: Mapping[str, bool],
) -> None:
    """Requirement 1: RFC 9745 and RFC 8594, with dates; check 2.4: that is all, however many rows there are."""
    settings = deprecating(databases.settings, tmp_path / "templates", **entry)
    members = members_of(databases, settings, cluster, installation_id)
    member = await members.add("acme", version=4)
    async with tenant_calls(members) as calls:
        who = principal(member, member.user_id)
        for number in range(100):
            await calls.post(who, "/api/v2/rpc/create_project", {"name": f"P {number}"})
        for path, deprecated in paths.items():
            answer = await calls.get(who, path)
            own = {name: answer.headers[name] for name in ("deprecation", "sunset") if name in answer.headers}
            assert bool(own) is deprecated, path
            if deprecated:
                assert own["deprecation"] == f"@{int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())}"
                assert own["sunset"] == FUTURE.strftime("%a, %d %b %Y 00:00:00 GMT")
                assert sum(len(name) + len(value) + 4 for name, value in own.items()) < 300
        old, new = [await calls.get(who, f"/api/v{version}/projects") for version in (1, 2)]
        assert len(old.json()) == len(new.json()) == 100
        assert set(old.json()[0]) == {"__typename", "id", "name", "owner", "member_count", "created_at"}
        called = await calls.post(who, "/api/v1/rpc/create_project", {"name": "Last"})
        assert ("deprecation" in called.headers) is ("resource" not in entry)


async def test_the_deprecating_version_keeps_every_key_and_value(ground: Ground, mode: str) -> None:
    """Requirement 2, check 2.1: the documents of version 3 hold those of version 2."""
    world = await ground.world(mode, version=2)
    views = ("v_user", "v_project", "v_user_card")
    before = {view: await documents(world, view) for view in views}
    await upgrade(world, 2, 3)
    for view in views:
        for new, old in zip(await documents(world, view), before[view], strict=True):
            assert {key: new[key] for key in old} == old


async def test_the_alias_and_its_replacement_are_equal_after_every_write(world: World) -> None:
    """Requirement 3, check 2.1: one column is behind both."""
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT tenancy.set_tenant_context($1, $2)", world.a.id, world.a.user_id)
        await connection.execute("SELECT fn_create_user($1)", json.dumps({"email": "new@x.example", "name": "Nova"}))
        await connection.execute("UPDATE tb_user SET name = name || ' II' WHERE id = $1", world.a.users[0])
        for view in ("v_user", f'"{world.a.schema}__api_v2".users'):
            rows = await connection.fetch(f"SELECT data ->> 'name' AS name, data ->> 'username' AS old FROM {view}")
            assert len(rows) == 3
            assert all(row["name"] == row["old"] for row in rows)
        await transaction.rollback()


async def test_a_removal_before_its_sunset_is_refused_before_anything_happens(
    fleet: Fleet, settings: Settings, tmp_path: Path, mode: str
) -> None:
    """Requirements 2 and 4: the release is refused, with the field, its version and its date."""
    home = await fleet.add("acme", mode, version=3)
    await release(fleet, 3)
    fleet.template = Templates.load(removing(settings, tmp_path / "early", FUTURE).templates)["reference"]
    message = f"field username of users of API 2 in version 4, promised until {FUTURE}"
    with pytest.raises(BeforeSunset, match=message):
        await plan_migration(fleet.databases, fleet.template, Options())
    trial = [] if mode == "shared" else [Options(only=["acme"])]
    for options in (Options(), Options(override_sunset=""), *trial):
        with pytest.raises(BeforeSunset, match=message):
            await migrate_all(fleet.databases, fleet.template, options)
    assert await fleet.version(home) == 3
    async with fleet.databases.registry() as session:
        assert await template_versions.current(session, fleet.template) == 3
        assert (await session.scalars(select(AuditEvent))).all() == []


async def test_an_override_removes_and_is_recorded_with_its_reason(
    fleet: Fleet, settings: Settings, tmp_path: Path
) -> None:
    """Requirement 4: who, why and what; the next run of the released version needs no other."""
    home = await fleet.add("acme", version=3)
    await release(fleet, 3)
    fleet.template = Templates.load(removing(settings, tmp_path / "early", FUTURE).templates)["reference"]
    options = Options(override_sunset="nobody reads it", actor="cli")
    assert (await migrate_all(fleet.databases, fleet.template, options)).done == 1
    assert await fleet.version(home) == 4
    async with fleet.databases.registry() as session:
        (event,) = (await session.scalars(select(AuditEvent))).all()
    assert (event.actor, event.action, event.details["reason"]) == (
        "cli", "template.override_sunset", "nobody reads it"
    )  # fmt: skip
    assert [(each["field"], each["removed_in"]) for each in event.details["removals"]] == [("username", 4)]
    await fleet.add("late", version=3)
    assert (await migrate_all(fleet.databases, fleet.template, Options())).done == 1


async def test_after_its_sunset_a_field_goes_and_the_register_marks_it(
    databases: Databases, cluster: Cluster, installation_id: UUID, tmp_path: Path, mode: str
) -> None:
    """Requirement 1, check 2.2: the key is gone, nothing of the notice is left but the row, marked as removed."""
    settings = removing(databases.settings, tmp_path / "templates", PAST)
    members = members_of(databases, settings, cluster, installation_id)
    member = await members.add("acme", mode, version=3)
    await release(Fleet(databases, cluster, installation_id, members.template), 3)
    assert (await migrate_all(databases, members.template, Options())).status == "done"
    async with tenant_calls(members) as calls:
        who = principal(member, member.user_id)
        made = await calls.post(who, "/api/v2/rpc/create_user", {"email": "ada@x.example", "name": "Ada"})
        assert made.json()["data"]["user"]["name"] == "Ada"
        listed = await calls.get(who, "/api/v2/users")
        assert "username" not in listed.json()[0]
        assert (await calls.get(who, "/api/v1/users")).json()[0]["fullName"] == "Ada"
    async with databases.admin(cluster, member.home.database) as connection:
        await connection.execute("SELECT set_config('app.current_tenant_id', $1, false)", str(member.id))
        rows = await connection.fetch("SELECT field, removed_in, removed FROM tenancy.deprecations()")
    assert [tuple(row) for row in rows] == [("username", 4, True)]
    assert not members.template.resource("users", api_version=2, pattern_version=4).counted


async def test_calls_are_counted_per_tenant_day_and_resource(members: Members, calls: TenantCalls, mode: str) -> None:
    """Requirement 4: a resource with a deprecated field counts, one without does not."""
    acme, other = await members.add("acme", mode), await members.add("other", mode)
    for member, times in ((acme, 3), (other, 1)):
        for _ in range(times):
            assert (await calls.get(principal(member, member.user_id), "/api/v2/users")).status_code == 200
        await calls.get(principal(member, member.user_id), "/api/v2/projects")
        await calls.get(principal(member, member.user_id), "/api/v1/users")
    await calls.get(principal(acme, acme.user_id), f"/api/default/users/{uuid4()}")
    await calls.aclose()
    async with members.databases.registry() as session:
        rows = (await session.scalars(select(DeprecatedCall))).all()
    assert {(row.tenant_id, row.day, row.template, row.api, row.resource): row.calls for row in rows} == {
        (acme.id, TODAY, "reference", 2, "users"): 4,
        (other.id, TODAY, "reference", 2, "users"): 1,
    }
    (entry,) = await deprecations(members.databases, members.templates, "reference")
    assert (entry.field, entry.tenants, entry.calls) == ("username", 2, 5)


async def test_a_deprecated_api_version_counts_every_resource_and_function(
    databases: Databases, cluster: Cluster, installation_id: UUID, tmp_path: Path
) -> None:
    """Requirement 4: so that somebody can decide whether the version may go."""
    settings = deprecating(databases.settings, tmp_path / "templates", api=1)
    members = members_of(databases, settings, cluster, installation_id)
    member = await members.add("acme", version=4)
    async with tenant_calls(members) as calls:
        who = principal(member, member.user_id)
        await calls.get(who, "/api/v1/projects")
        await calls.get(who, "/api/v1/users")
        await calls.post(who, "/api/v1/rpc/create_project", {"name": "P"})
        await calls.post(who, "/api/v2/rpc/create_project", {"name": "P"})
    async with databases.registry() as session:
        used = await deprecated_calls.recent(session, 30)
    assert {key[1:]: use.calls for key, use in used.items()} == {
        (1, "projects"): 1, (1, "users"): 1, (1, "rpc/create_project"): 1
    }  # fmt: skip
    by_entry = {(e.api, e.resource): (e.tenants, e.calls) for e in await deprecations(databases, members.templates)}
    assert by_entry == {(1, None): (1, 3), (2, "users"): (0, 0)}


async def test_only_the_last_thirty_days_are_told(databases: Databases) -> None:
    """Requirement 4: what was called long ago decides nothing."""
    tenant = uuid4()
    async with databases.registry.begin() as session:
        for days, calls in ((0, 1), (29, 2), (30, 4), (401, 8)):
            called = Called(TODAY - timedelta(days=days), tenant, "reference", 2, "users")
            await deprecated_calls.add(session, {called: calls})
    async with databases.registry.begin() as session:
        assert (await deprecated_calls.recent(session, 30))[("reference", 2, "users")].calls == 3
        await deprecated_calls.forget_old(session)
        assert len((await session.scalars(select(DeprecatedCall))).all()) == 3


async def test_counts_wait_in_memory_until_the_registry_takes_them(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requirement 4: a registry that is away loses nothing, and nothing is counted twice."""
    tenant, real = uuid4(), deprecated_calls.add
    refusals = iter([ClusterUnavailable("away"), ClusterUnavailable("still")])

    async def refuse(*arguments: Any) -> None:
        if (error := next(refusals, None)) is not None:
            raise error
        await real(*arguments)

    monkeypatch.setattr(deprecated_calls, "add", refuse)
    counts = DeprecatedCalls(databases, seconds=0.01)
    for _ in range(5):
        counts.count(tenant, "reference", 2, "users")
    while not (found := await counted(databases)):
        await asyncio.sleep(0.01)
    assert found == {"users": 5}
    counts.count(tenant, "reference", 2, "users")
    await counts.aclose()
    await counts.aclose()
    assert await counted(databases) == {"users": 6}


async def test_processes_that_count_at_the_same_time_add_up(databases: Databases) -> None:
    """Requirement 4: eight writers of the same forty rows, in orders of their own."""
    tenants = [uuid4() for _ in range(40)]
    writers = [DeprecatedCalls(databases) for _ in range(8)]
    for number, writer in enumerate(writers):
        for tenant in tenants[number:] + tenants[:number]:
            writer.count(tenant, "reference", 2, "users")
    await asyncio.gather(*(writer.aclose() for writer in writers))
    assert await counted(databases) == {"users": 320}


async def counted(databases: Databases) -> dict[str, int]:
    async with databases.registry() as session:
        return {key[2]: use.calls for key, use in (await deprecated_calls.recent(session, 30)).items()}


async def release(fleet: Fleet, version: int) -> None:
    async with fleet.databases.registry.begin() as session:
        await template_versions.release(session, fleet.template, version)


async def test_a_key_that_vanishes_unannounced_is_refused_before_any_home_is_touched(
    fleet: Fleet, settings: Settings, tmp_path: Path
) -> None:
    """Requirement 2: the new version is run on rows that nobody keeps, and the documents are compared."""
    home = await fleet.add("acme", version=3)
    await release(fleet, 3)
    files = {"api_v2.sql": WITHOUT_USERNAME, "smoke.sql": "SELECT data FROM users;"}
    silent = with_next_version(settings, tmp_path / "silent", "oversight", files, {})
    fleet.template = Templates.load(silent.templates)["reference"]
    with pytest.raises(TemplateRefused, match="0004_oversight") as refused:
        await migrate_all(fleet.databases, fleet.template, Options())
    assert any("username" in each["problem"] for each in refused.value.errors)
    assert await fleet.version(home) == 3
    async with fleet.databases.registry() as session:
        assert await template_versions.current(session, fleet.template) == 3


async def test_a_resource_that_was_removed_is_gone_and_no_longer_described(
    databases: Databases, cluster: Cluster, installation_id: UUID, tmp_path: Path
) -> None:
    """Requirement 1: 410 in the API version that lost it, and nothing in the OpenAPI document."""
    entry = '[[deprecations]]\napi = 1\nresource = "projects"\nsince = 3\nannounced = 2026-01-01\nremoved_in = 4'
    edits = {"": f"{entry}\nsunset = {PAST}"}
    settings = with_next_version(databases.settings, tmp_path / "t", "end", {"smoke.sql": "SELECT 1;"}, edits)
    members = members_of(databases, settings, cluster, installation_id)
    member = await members.add("acme", version=4)
    async with tenant_calls(members) as calls:
        who = principal(member, member.user_id)
        gone = await calls.get(who, "/api/v1/projects")
        assert (gone.status_code, gone.json()["code"]) == (410, "gone")
        assert (await calls.get(who, "/api/v2/projects")).status_code == 200
    document: dict[str, Any] = {"paths": {}, "components": {"schemas": {}, "securitySchemes": {}}}
    add_tenant_paths(document, members.template)
    assert "/api/v1/projects" not in document["paths"]
    assert "/api/v2/projects" in document["paths"]
