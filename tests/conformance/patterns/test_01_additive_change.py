"""Pattern 1, additive schema change: version 2 adds fields, and nobody who reads version 1 sees a difference."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select

from control_plane.errors import TemplateChanged
from control_plane.migrator import Event, HomeResult, Options, migrate_all
from control_plane.registry.models import Home, RunHome
from control_plane.templates import Templates
from control_plane.templates.script import Part
from tests.conformance.conftest import MODES, Ground
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.world import World
from tests.support.fleet import Fleet
from tests.support.structure import difference, structure

USERS = "SELECT data FROM v_user ORDER BY id"


async def documents(world: World, query: str) -> list[dict[str, Any]]:
    async with world.within(world.a) as connection:
        return [json.loads(row["data"]) for row in await connection.fetch(query)]


async def upgrade(world: World, start: int, end: int) -> None:
    async with world.admin(world.a) as connection:
        await connection.execute(world.template.script(start, end).message(world.a.home.id, world.a.schema, 2))


async def migrate(fleet: Fleet, target: int) -> dict[str, HomeResult]:
    """The outcomes by slug, or by the label of the shared home."""
    outcomes: dict[str, HomeResult] = {}

    def listen(event: Event) -> None:
        if isinstance(event, HomeResult):
            outcomes[event.label] = event

    await migrate_all(fleet.databases, fleet.template, Options(target=target), listener=listen)
    return outcomes


async def structures(fleet: Fleet, homes: list[Home]) -> list[dict[str, str]]:
    found = []
    for home in homes:
        async with fleet.admin(home) as connection:
            found.append(await structure(connection, home.id))
    return found


async def test_new_fields_have_their_defaults_and_old_ones_their_values(ground: Ground, mode: str) -> None:
    """Requirement 1, check 1.1: three users of version 1 gain a bio, settings and an avatar, and lose nothing."""
    world = await ground.world(mode, version=1)
    async with world.within(world.a) as connection:
        await connection.execute("INSERT INTO tb_user (email, name) VALUES ('ada@acme.example', 'Ada')")
    before = {query: await documents(world, query) for query in (USERS, "SELECT data FROM v_project ORDER BY id")}
    await upgrade(world, 1, 2)
    users = await documents(world, USERS)
    assert [(user["bio"], user["settings"], user["avatar_url"]) for user in users] == [("", {}, None)] * 3
    for query, old in before.items():
        new = await documents(world, query)
        assert [{key: found[key] for key in kept} for found, kept in zip(new, old, strict=True)] == old


async def test_a_constant_default_rewrites_no_table(ground: Ground, mode: str) -> None:
    """Requirement 1, X12: a table of any size takes the new columns in the same moment."""
    world = await ground.world(mode, version=1)
    files = "SELECT pg_relation_filenode('tb_user'), pg_relation_filenode('tb_project')"
    async with world.owner(world.a) as connection:
        before = await connection.fetchrow(files)
        await upgrade(world, 1, 2)
        assert await connection.fetchrow(files) == before


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("integer", "found integer"),
        ("text", "found text"),
        ("text DEFAULT 'x'", "found text DEFAULT 'x'::text"),
    ],
)
async def test_a_column_of_another_definition_stops_the_upgrade_and_says_so(
    fleet: Fleet, mode: str, found: str, told: str
) -> None:
    """Requirement 2, check 1.3: the error names table, column and both definitions; the home stays at version 1."""
    home = await fleet.add("acme", mode)
    async with fleet.admin(home) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        await connection.execute(f'ALTER TABLE "{home.schema_name}".tb_user ADD COLUMN bio {found}')
    before = await structures(fleet, [home])
    (outcome,) = (await migrate(fleet, 2)).values()
    assert (outcome.status, outcome.sqlstate) == ("failed", "42701")
    assert outcome.error == (
        f'column "bio" of relation "tb_user" already exists: {told}, wanted text NOT NULL DEFAULT \'\'::text'
        " (0002_profiles/expand.sql)"
    )
    assert await fleet.version(home) == 1
    assert await structures(fleet, [home]) == before


async def test_each_home_is_told_what_it_has(fleet: Fleet) -> None:
    """Requirement 2: homes that fail alike share the search for the place, and not what was found there."""
    for slug, kind in (("one", "integer"), ("two", "boolean")):
        home = await fleet.add(slug)
        async with fleet.admin(home) as connection, connection.transaction():
            await connection.execute("SET LOCAL ROLE cp_owner")
            await connection.execute(
                f'ALTER TABLE "{home.schema_name}".tb_user ADD COLUMN avatar_url {kind}, ADD COLUMN bio {kind}'
            )
    outcomes = await migrate(fleet, 2)
    for slug, kind in (("one", "integer"), ("two", "boolean")):
        assert f"found {kind}, wanted text NOT NULL DEFAULT ''::text" in (outcomes[slug].error or "")


async def test_an_address_is_unique_in_its_tenant_whatever_its_case(world: World) -> None:
    """Requirement 3, check 1.5: A@x.io after a@x.io is a conflict; the tenant next door is none."""
    insert = "INSERT INTO tb_user (email, name) VALUES ($1, 'Ada')"
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT tenancy.set_tenant_context($1, $2)", world.a.id, world.a.user_id)
        await connection.execute(insert, "ada@x.example")
        with pytest.raises(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute(insert, "Ada@X.example")
        answer = json.loads(
            await connection.fetchval("""SELECT fn_create_user('{"email": "ADA@x.example", "name": "A"}')""")
        )
        assert (answer["success"], answer["code"]) == (False, "conflict")
        await transaction.rollback()
    async with world.request(world.b) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT tenancy.set_tenant_context($1, $2)", world.b.id, world.b.user_id)
        await connection.execute(insert, f"user0@{world.a.tenant.slug}.example".upper())
        await transaction.rollback()


async def test_what_is_looked_up_sorted_or_joined_is_a_column_beside_data(world: World) -> None:
    """Requirement 4: whatever the template lets callers name is a column of the view, of every API version."""
    template = world.template
    async with world.within(world.a) as connection:
        for api in template.api_versions(template.latest):
            for name, declared in template.manifest.resources.items():
                if declared.api is None or api in declared.api:
                    query = await connection.prepare(f'SELECT * FROM "{world.a.schema}__api_v{api}"."{name}"')
                    columns = [attribute.name for attribute in query.get_attributes()]
                    assert {*declared.columns, "data"} <= set(columns), (api, name)


async def test_new_columns_go_to_the_end_of_a_view(ground: Ground, mode: str) -> None:
    """Requirement 4: what a view had keeps its place, through every version."""
    world = await ground.world(mode, version=1)
    shapes = """
        SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) AS columns
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = $1::text::regnamespace AND c.relkind = 'v' AND a.attnum > 0
        GROUP BY c.relname
    """
    async with world.admin(world.a) as connection:
        before = {row["relname"]: row["columns"] for row in await connection.fetch(shapes, world.a.schema)}
        for version in range(2, world.template.latest + 1):
            await upgrade(world, version - 1, version)
            after = {row["relname"]: row["columns"] for row in await connection.fetch(shapes, world.a.schema)}
            for view, columns in before.items():
                assert after[view][: len(columns)] == columns, (version, view)
            before = after
    assert before["v_project"][-2:] == ["data", "description"]


async def test_a_lookup_by_column_is_one_index_scan_among_many_rows(shared_world: World) -> None:
    """Requirement 4, evidence: 100 001 users of one tenant, looked up by id and by the time of their creation."""
    world = shared_world
    async with world.admin(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f'SET LOCAL search_path = "{world.a.schema}", extensions, pg_temp')
        await connection.execute("SET LOCAL ROLE cp_owner")
        await connection.execute(
            """
            INSERT INTO tb_user (tenant_id, email, name, created_at)
            SELECT $1, 'n' || n || '@example.com', 'N', '2026-01-01'::timestamptz + n * interval '1 second'
            FROM generate_series(1, 100001) AS n
            """,
            world.a.id,
        )
        await connection.execute("ANALYZE tb_user")
        await connection.execute(f'SET LOCAL ROLE "{world.a.home.role_name}"')
        await connection.execute("SELECT set_config('app.current_tenant_id', $1, true)", str(world.a.id))
        own = "tenant_id = tenancy.current_tenant_id()"
        by_id = await explain(connection, f"SELECT data FROM v_user WHERE {own} AND id = $1", [world.a.users[0]])
        assert_indexed(by_id, "tb_user", "tenant_id", "id =")
        newest = await explain(
            connection,
            f"SELECT data FROM v_user WHERE {own} AND created_at > $1 ORDER BY created_at LIMIT 9",
            [datetime(2026, 1, 2, tzinfo=UTC)],
        )
        assert_indexed(newest, "tb_user", "tenant_id", "created_at >")
        by_address = await explain(connection, f"SELECT data FROM v_user WHERE {own} AND email = 'n77@example.com'")
        assert_indexed(by_address, "tb_user", "tenant_id", "email =")
        await transaction.rollback()


async def test_an_applied_version_is_applied_no_second_time(fleet: Fleet) -> None:
    """Requirement 5, X1, check 1.2: the second call says that there is nothing to do, and changes nothing."""
    homes = [await fleet.add(f"acme-{mode}", mode) for mode in MODES]
    await migrate(fleet, 2)
    before = await structures(fleet, homes)
    again = await migrate_all(fleet.databases, fleet.template, Options(target=2))
    assert (again.run_id, again.done, again.current) == (None, 0, 3)
    assert str(again.plan) == "nothing to do: 3 homes at version 2"
    for home in homes:  # nor past the planner
        async with fleet.admin(home) as connection:
            with pytest.raises(asyncpg.PostgresError, match="the home is at version 2, not 1"):
                await connection.execute(fleet.template.script(1, 2).message(home.id, home.schema_name, 2))
    assert await structures(fleet, homes) == before


async def test_a_released_version_that_was_edited_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    """Requirement 5, X1: its checksum is fixed by its release."""
    home = await fleet.add("acme")
    await migrate(fleet, 2)
    shutil.copytree(fleet.databases.settings.templates, tmp_path / "edited")
    with (tmp_path / "edited/reference/versions/0002_profiles/expand.sql").open("a") as file:
        file.write("-- an afterthought\n")
    fleet.template = Templates.load(tmp_path / "edited")["reference"]
    with pytest.raises(TemplateChanged, match="released version 2"):
        await migrate(fleet, 3)
    assert await fleet.version(home) == 2


async def test_an_upgrade_tells_what_it_touched(fleet: Fleet, mode: str) -> None:
    """Requirement 5: objects by name, and the rows that the version itself wrote."""
    await fleet.add("acme", mode)
    (outcome,) = (await migrate(fleet, 2)).values()
    assert outcome.touched is not None
    assert outcome.touched.rows == 0
    assert outcome.touched.objects == {
        "tables": ["tb_project", "tb_user"],
        "views": ["v_project", "v_user"],
        "indexes": [],
        "functions": [],
    }
    (outcome,) = (await migrate(fleet, 3)).values()
    assert outcome.touched is not None
    assert outcome.touched.objects == {
        "tables": [],
        "views": ["v_user", "api_v2.projects", "api_v2.users"],
        "indexes": [],
        "functions": ["api_v2.create_project", "api_v2.create_user", "api_v2.rename_project"],
    }


BACKFILL = "-- lint: allow data-change because the test counts the rows\nUPDATE tb_user SET bio = 'filled';\n"


async def test_an_upgrade_counts_the_rows_that_it_wrote(fleet: Fleet, tmp_path: Path) -> None:
    """Requirement 5: a backfill in version 2, over as many users as each home has."""
    shutil.copytree(fleet.databases.settings.templates, tmp_path / "backfill")
    with (tmp_path / "backfill/reference/versions/0002_profiles/expand.sql").open("a") as file:
        file.write(BACKFILL)
    fleet.template = Templates.load(tmp_path / "backfill")["reference"]
    for users in (0, 3, 5):
        home = await fleet.add(f"with-{users}", "schema")
        async with fleet.admin(home) as connection, connection.transaction():
            await connection.execute(f'SET LOCAL ROLE cp_owner; SET LOCAL search_path = "{home.schema_name}"')
            await connection.execute(
                "INSERT INTO tb_user (tenant_id, email, name) SELECT h.tenant_id, n || '@x.example', 'N' "
                "FROM tenancy.homes AS h, generate_series(1, $2::integer) AS n WHERE h.id = $1",
                home.id,
                users,
            )
    outcomes = await migrate(fleet, 2)
    counts = {slug: outcome.touched and outcome.touched.rows for slug, outcome in outcomes.items()}
    assert counts == {"with-0": 0, "with-3": 3, "with-5": 5}
    async with fleet.databases.registry() as session:
        recorded = (await session.execute(select(RunHome.tenant, RunHome.rows_touched))).all()
    assert {row.tenant: row.rows_touched for row in recorded} == counts


async def test_what_an_attempt_wrote_that_was_undone_is_not_counted(ground: Ground, mode: str) -> None:
    """Requirement 5: the server counts it for the session, for a while; a retry comes from the same session."""
    world = await ground.world(mode, version=1)
    script = world.template.script(1, 2)
    message = replace(script, parts=(*script.parts, Part("backfill", BACKFILL, api=None))).message(
        world.a.home.id, world.a.schema, 2
    )
    said: list[int] = []
    async with world.admin(world.a) as connection:
        connection.add_log_listener(lambda _, message: said.append(json.loads(message.message)["rows"]))
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(message)
        await transaction.rollback()
        await connection.execute(message)
    users = 4 if mode == "shared" else 2  # of both tenants
    assert said == [users, users]


async def test_a_reader_that_idles_in_a_transaction_keeps_no_other_reader_waiting(fleet: Fleet, mode: str) -> None:
    """Requirement 5, X12: the ALTER TABLE behind it gives up soon and comes back, so a later reader is answered."""
    home = await fleet.add("acme", mode)
    lock = """
        SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'control-plane migrate' AND datname = current_database() AND wait_event_type = 'Lock'
    """
    read = f'SELECT count(*) FROM "{home.schema_name}".tb_user'
    async with fleet.admin(home) as idle, fleet.admin(home) as later, fleet.admin(home) as watch:
        transaction = idle.transaction()
        await transaction.start()
        await idle.execute("SET LOCAL ROLE cp_owner")
        await idle.execute(read)
        await later.execute("SET ROLE cp_owner")
        running = asyncio.create_task(migrate(fleet, 2))
        while not await watch.fetchval(lock):
            await asyncio.sleep(0.005)
        assert await later.fetchval(read) == 0, "answered although the first reader still holds its lock"
        assert idle.is_in_transaction()
        await transaction.rollback()
        (outcome,) = (await running).values()
    assert (outcome.status, await fleet.version(home)) == ("done", 2)


async def test_an_upgrade_that_meets_a_lock_is_tried_again_before_it_is_given_up(fleet: Fleet) -> None:
    """Requirement 5, X12: and then the home stays where it was, whole."""
    fleet.databases.settings = fleet.databases.settings.model_copy(update={"lock_timeout": 0.1})
    home = await fleet.add("acme")
    (before,) = await structures(fleet, [home])
    async with fleet.admin(home) as idle, idle.transaction():
        await idle.execute("SET LOCAL ROLE cp_owner")
        await idle.execute(f'SELECT count(*) FROM "{home.schema_name}".tb_user')
        (outcome,) = (await migrate(fleet, 2)).values()
    assert (outcome.status, outcome.sqlstate) == ("failed", "55P03")
    assert outcome.attempts > 1
    assert difference((await structures(fleet, [home]))[0], before) == {}
