"""Pattern 3, versioned API views: several shapes of the same rows at once, one the default, until one retires."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from control_plane.errors import BeforeSunset, Gone, TemplateInvalid
from control_plane.migrator import Options, migrate_all
from control_plane.pools.databases import Databases
from control_plane.registry import template_versions
from control_plane.registry.models import Cluster
from control_plane.settings import Settings, shipped
from control_plane.templates import Template, Templates
from tests.conformance.conftest import Ground
from tests.conformance.world import Member, World, bind
from tests.support.members import Members
from tests.support.structure import difference, structure
from tests.support.templates import with_next_version
from tests.support.tenant_calls import principal, tenant_calls

TODAY = datetime.now(UTC).date()
PAST, FUTURE = TODAY - timedelta(days=1), TODAY + timedelta(days=200)
LATEST_DEFAULT = "[[default_api]]\nsince = 3\napi = 2"


def retiring(settings: Settings, into: Path, sunset: object = PAST, **edits: str) -> Settings:
    """A template whose version 4 retires API version 1, promised until `sunset`."""
    entry = f"""
        [[deprecations]]
        api = 1
        since = 3
        announced = 2026-01-01
        sunset = {sunset}
        removed_in = 4
        """
    edited = {"1 = { since = 1 }": "1 = { since = 1, retired = 4 }", "": entry, **edits}
    return with_next_version(settings, into, "farewell", {"smoke.sql": "SELECT 1;"}, edited)


def template_of(settings: Settings) -> Template:
    return Templates.load(settings.templates)["reference"]


async def read(connection: asyncpg.Connection, schema: str, view: str) -> list[dict[str, Any]]:
    rows = await connection.fetch(f'SELECT data FROM "{schema}".{view} ORDER BY created_at, id')
    return [json.loads(row["data"]) for row in rows]


async def run_script(world: World, member: Member, start: int, end: int) -> None:
    async with world.admin(member) as connection:
        await connection.execute(world.template.script(start, end).message(member.home.id, member.schema, 2))


async def test_version_objects_stand_in_schemas_of_the_tenant_s_home(world: World) -> None:
    """Requirement 1: named after the home, in every mode, and never longer than a name may be."""
    async with world.admin(world.a) as connection:
        for member in (world.a, world.b):
            async with world.admin(member) as own:
                found = {
                    row["schema_name"]
                    for row in await own.fetch("SELECT schema_name FROM tenancy.home_schemas($1)", member.home.id)
                }
            expected = {member.schema + suffix for suffix in ("", "__api", "__api_v1", "__api_v2")}
            assert found == expected
            assert len(f"{member.schema}__api_v9999".encode()) <= 63
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                "INSERT INTO tenancy.homes (id, isolation, template, schema_name) "
                "VALUES (gen_random_uuid(), 'shared', 'reference', repeat('x', 49))"
            )
    if world.mode == "schema":
        assert world.a.schema != world.b.schema


async def test_both_versions_show_the_same_rows_in_one_transaction(world: World) -> None:
    """Requirement 2, check 3.1: a write through any version is seen through all, each in its own shape."""
    schema = world.a.schema
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await bind(connection, world.a)
        for api, name in ((1, "Ada"), (2, "Grace")):
            document = json.dumps({"email": f"{name}@x.example", "name": name})
            await connection.execute(f'SELECT "{schema}__api_v{api}".create_user($1)', document)
        old, new = [await read(connection, f"{schema}__api_v{api}", "users") for api in (1, 2)]
        assert [user["id"] for user in old] == [user["id"] for user in new]
        assert {"Ada", "Grace"} <= {user["fullName"] for user in old}
        assert not any("name" in user for user in old)
        ada = next(user for user in new if user["name"] == "Ada")
        assert ada["profile"] == {"bio": "", "avatarUrl": None}
        await transaction.rollback()


async def test_every_version_offers_the_same_columns_beside_data(world: World) -> None:
    """Requirement 3: same names, same types, for every resource that several versions have."""
    columns = """
        SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = to_regclass($1) AND attnum > 0 ORDER BY attnum
    """
    manifest, apis = world.template.manifest, world.template.api_versions(world.template.latest)
    async with world.admin(world.a) as connection:
        for name, declared in manifest.resources.items():
            served = [api for api in apis if declared.api is None or api in declared.api]
            shapes = [
                dict(map(tuple, await connection.fetch(columns, f'"{world.a.schema}__api_v{api}"."{name}"')))
                for api in served
            ]
            for shape in shapes:
                assert shape["data"] == "jsonb"
                assert {column: shape[column] for column in declared.columns} == {
                    column: shapes[0][column] for column in declared.columns
                }, name


async def test_no_view_is_written_with_a_star(world: World) -> None:
    """Requirement 3: what `*` stands for is frozen when the view is made, so the alias names its columns too."""
    for file in (shipped("tenant_templates") / "reference" / "versions").glob("*/api_v*.sql"):
        assert "*" not in "".join(line for line in file.read_text().splitlines() if not line.startswith("--")), file
    async with world.admin(world.a) as connection:
        shape = "SELECT tenancy.view_shapes($1)"
        alias = json.loads(await connection.fetchval(shape, f"{world.a.schema}__api"))
        target = json.loads(await connection.fetchval(shape, f"{world.a.schema}__api_v2"))
    assert alias == target


async def test_a_caller_of_any_version_sees_his_tenant_s_rows_and_no_others(world: World) -> None:
    """Requirement 1, check 3.3: as many as the base table shows him, through both versions and the default."""
    for member in (world.a, world.b):
        async with world.within(member) as connection:
            for view, table in (("users", "tb_user"), ("projects", "tb_project")):
                base = await connection.fetchval(f"SELECT count(*) FROM {table}")
                assert base == len(member.users if view == "users" else member.projects)
                for suffix in ("__api_v1", "__api_v2", "__api"):
                    rows = await connection.fetch(f'SELECT tenant_id FROM "{member.schema}{suffix}".{view}')
                    assert [row["tenant_id"] for row in rows] == [member.id] * base


async def test_a_neighbour_s_arrival_and_upgrade_change_nothing(ground: Ground) -> None:
    """Requirement 1, check 3.2: in schema mode A reads A's rows before and after B is upgraded."""
    world = await ground.world("schema", version=3)
    async with world.within(world.a) as connection:
        before = [await read(connection, f"{world.a.schema}__api_v{api}", "users") for api in (1, 2)]
    assert [len(each) for each in before] == [2, 2]
    await run_script(world, world.b, 3, world.template.latest)
    async with world.within(world.a) as connection:
        assert [await read(connection, f"{world.a.schema}__api_v{api}", "users") for api in (1, 2)] == before
    async with world.within(world.b) as connection:
        theirs = await read(connection, f"{world.b.schema}__api_v1", "users")
    assert not {user["id"] for user in theirs} & {user["id"] for user in before[0]}


async def test_the_default_is_switched_in_the_upgrade_s_transaction(ground: Ground, mode: str) -> None:
    """Requirement 4: undone with it, committed with it; the old and the new target stay where they were."""
    world = await ground.world(mode, version=2)
    alias, script = f"{world.a.schema}__api", world.template.script(2, 3)

    async def keys(schema: str) -> set[str]:
        async with world.within(world.a) as connection:
            return {key for user in await read(connection, schema, "users") for key in user}

    async with world.admin(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(script.message(world.a.home.id, world.a.schema, 2))
        await transaction.rollback()
        assert "fullName" in await keys(alias)
        await connection.execute(script.message(world.a.home.id, world.a.schema, 2))
    assert {"name", "profile"} <= await keys(alias) == await keys(f"{world.a.schema}__api_v2")
    assert "fullName" in await keys(f"{world.a.schema}__api_v1")


async def test_renaming_a_base_column_changes_no_published_document(scratch: World) -> None:
    """Requirement 5: views refer to columns by number."""
    world = scratch
    schemas = [f"{world.a.schema}__api_v{api}" for api in (1, 2)]

    async def published() -> list[list[dict[str, Any]]]:
        async with world.within(world.a) as connection:
            return [await read(connection, schema, view) for schema in schemas for view in ("users", "projects")]

    before = await published()
    async with world.owner(world.a) as owner:
        await owner.execute("ALTER TABLE tb_user RENAME COLUMN name TO display_name")
    assert await published() == before


async def test_dropping_a_column_that_a_version_uses_is_refused_by_the_server(world: World) -> None:
    """Requirement 5: until the versions that use it are gone."""
    async with world.owner(world.a) as owner:
        for statement in ("ALTER TABLE tb_user DROP COLUMN name", "DROP VIEW v_user"):
            with pytest.raises(asyncpg.DependentObjectsStillExistError):
                await owner.execute(statement)


async def test_a_retired_version_is_gone_and_the_other_is_not(
    databases: Databases, cluster: Cluster, installation_id: UUID, tmp_path: Path, mode: str
) -> None:
    """Requirement 4, check 3.5: after its sunset v1 answers 410 and has no schema; v2 and the default go on."""
    databases.settings = retiring(databases.settings, tmp_path / "templates")
    members = Members(databases, cluster, installation_id)
    member = await members.add("acme", mode, version=3)
    await release(databases, members.template, 3)
    async with tenant_calls(members) as calls:
        who = principal(member, member.user_id)
        await calls.post(who, "/api/v1/rpc/create_user", {"email": "ada@x.example", "name": "Ada"})
        before = [(await calls.get(who, f"/api/{api}/users")).json() for api in ("v2", "default")]
        assert (await migrate_all(databases, members.template, Options())).status == "done"
        assert [(await calls.get(who, f"/api/{api}/users")).json() for api in ("v2", "default")] == before
        gone = [
            await calls.get(who, "/api/v1/users"),
            await calls.get(who, f"/api/v1/users/{member.id}"),
            await calls.post(who, "/api/v1/rpc/create_user", {"email": "eve@x.example", "name": "Eve"}),
        ]
        for answer in gone:
            assert (answer.status_code, answer.json()["code"], answer.json()["hint"]) == (410, "gone", "Use v2.")
        assert (await calls.get(who, "/api/v9/users")).status_code == 404
    async with databases.admin(cluster, member.home.database) as connection:
        schemas = await connection.fetch("SELECT schema_name FROM tenancy.home_schemas($1)", member.home.id)
        assert {row["schema_name"].removeprefix(member.home.schema_name) for row in schemas} == {
            "", "__api", "__api_v2"
        }  # fmt: skip
        assert await connection.fetch("SELECT * FROM tenancy.isolation_faults($1)", member.home.id) == []


async def test_a_home_that_is_built_after_a_retirement_equals_one_that_lived_through_it(
    databases: Databases, cluster: Cluster, installation_id: UUID, tmp_path: Path
) -> None:
    """Requirement 4: in one leap, step by step, and from nothing."""
    databases.settings = retiring(databases.settings, tmp_path / "templates")
    members = Members(databases, cluster, installation_id)
    new, leaping, stepping = [
        await members.add(slug, "schema", version=version) for slug, version in (("fresh", 4), ("leap", 1), ("step", 1))
    ]
    found = []
    async with databases.admin(cluster, new.home.database) as connection:
        for member, steps in ((new, ()), (leaping, ((1, 4),)), (stepping, ((1, 2), (2, 3), (3, 4)))):
            for start, end in steps:
                script = members.template.script(start, end)
                await connection.execute(script.message(member.home.id, member.home.schema_name, 2))
            found.append(await structure(connection, member.home.id))
    assert difference(found[0], found[1]) == {}
    assert difference(found[1], found[2]) == {}


async def test_retiring_before_the_sunset_is_refused(
    databases: Databases, cluster: Cluster, installation_id: UUID, tmp_path: Path
) -> None:
    """Requirement 4, check 3.5: unless somebody says why, which pattern 2 tries."""
    databases.settings = retiring(databases.settings, tmp_path / "templates", FUTURE)
    members = Members(databases, cluster, installation_id)
    member = await members.add("acme", version=3)
    await release(databases, members.template, 3)
    with pytest.raises(BeforeSunset, match=f"API version 1 in version 4, promised until {FUTURE}"):
        await migrate_all(databases, members.template, Options())
    async with tenant_calls(members) as calls:
        assert (await calls.get(principal(member, member.user_id), "/api/v1/users")).status_code == 200


def test_the_default_cannot_be_retired(settings: Settings, tmp_path: Path) -> None:
    """Requirement 4: such a template is not read at all."""
    back = f"{LATEST_DEFAULT}\n\n[[default_api]]\nsince = 4\napi = 1"
    with pytest.raises(TemplateInvalid, match="API version 1 is the default when version 4 retires it"):
        template_of(retiring(settings, tmp_path / "templates", **{LATEST_DEFAULT: back}))


async def test_the_server_refuses_it_too(ground: Ground, mode: str) -> None:
    """Requirement 4: the alias depends on what it names, so nothing of the upgrade stays."""
    world = await ground.world(mode, version=2)
    script = world.template.script(2, 3)
    message = replace(script, manifest={**script.manifest, "retired": [2]}).message(
        world.a.home.id, world.a.schema, 2
    )  # fmt: skip
    async with world.admin(world.a) as connection:
        with pytest.raises(asyncpg.DependentObjectsStillExistError):
            await connection.execute(message)
        assert await connection.fetchval("SELECT version FROM tenancy.homes WHERE id = $1", world.a.home.id) == 2


def test_a_retirement_is_announced_and_carried_out_in_the_same_version(settings: Settings, tmp_path: Path) -> None:
    """Requirement 4: the list of API versions and the register cannot say different things."""
    for number, (old, new) in enumerate([("retired = 4", "retired = 5"), ("removed_in = 4", "")]):
        changed = retiring(settings, tmp_path / str(number)).templates / "reference" / "template.toml"
        changed.write_text(changed.read_text().replace(old, new))
        with pytest.raises(TemplateInvalid, match="is retired in version"):
            Templates.load(tmp_path / str(number))


def test_a_retired_version_gets_no_more_files(settings: Settings, tmp_path: Path) -> None:
    """Requirement 4: what they make would land in the base schema."""
    found = retiring(settings, tmp_path / "templates")
    stray = found.templates / "reference" / "versions" / "0004_farewell" / "api_v1.sql"
    stray.write_text("SELECT 1;")
    with pytest.raises(TemplateInvalid, match=r"0004_farewell/api_v1\.sql: the version does not serve this API"):
        template_of(found)
    stray.unlink()
    template = template_of(found)
    assert (template.api_versions(3), template.api_versions(4)) == ((1, 2), (2,))
    with pytest.raises(Gone):
        template.resource("users", api_version=1, pattern_version=4)


async def release(databases: Databases, template: Template, version: int) -> None:
    async with databases.registry.begin() as session:
        await template_versions.release(session, template, version)
