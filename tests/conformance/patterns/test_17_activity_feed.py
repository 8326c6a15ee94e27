"""Pattern 17, one feed over several tables: merged from their indexes, and only what is listed is in it."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import asyncpg

from tests.conformance.conftest import Ground
from tests.conformance.patterns.plans import Plan, explain
from tests.conformance.patterns.test_16_notifications import ADA, BOB, EVE, act_as, call, people
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World, bind

TABLES = ("tb_page_view", "tb_button_click", "tb_form_submission")
COLUMNS = ["tenant_id", "type", "id", "user_id", "created_at", "details"]


async def columns(connection: asyncpg.Connection, view: str) -> list[str]:
    rows = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum", view
    )
    return [row["attname"] for row in rows]


async def test_branches_are_alike_and_tagged(world: World) -> None:
    """Requirement 1: one shape for all types, and each row says which it is; the order is total."""
    async with people(world, world.a) as (connection, ids):
        await act_as(connection, ids[ADA])
        view = await call(connection, "track_page_view", page_url="/a", duration_seconds=3)
        click = await call(connection, "track_button_click", button="save", page_url="/a")
        form = await call(connection, "submit_form", form="contact", fields={"text": "hi"})
        assert all(answer["success"] for answer in (view, click, form))
        assert await columns(connection, "v_activity") == COLUMNS
        rows = await connection.fetch("SELECT data FROM activities ORDER BY created_at DESC, id DESC")
        feed = [json.loads(row["data"]) for row in rows]
        assert [entry["type"] for entry in feed] == ["form_submission", "button_click", "page_view"]
        assert [entry["details"] for entry in feed] == [
            {"form": "contact"},
            {"button": "save", "page_url": "/a"},
            {"page_url": "/a", "duration_seconds": 3},
        ]
        assert {entry["user"]["name"] for entry in feed} == {ADA}
        assert view["data"]["activity"] == feed[2]
        ties = await connection.fetchval("SELECT count(*) - count(DISTINCT (created_at, id)) FROM v_activity")
        assert ties == 0


async def test_what_people_type_into_forms_is_not_in_the_feed(world: World) -> None:
    """Requirement 3, check 17.2: a password in a form is in no output; nor is any e-mail address."""
    async with people(world, world.a) as (connection, ids):
        await act_as(connection, ids[ADA], "admin")
        answer = await call(connection, "submit_form", form="login", fields={"password": "hunter2"})
        outputs = [json.dumps(answer)]
        for relation in ("v_activity", "activities", "tenant_activities"):
            rows = await connection.fetch(f"SELECT r::text AS everything FROM {relation} AS r")
            assert rows
            outputs += [row["everything"] for row in rows]
        assert "hunter2" not in "".join(outputs)
        assert "password" not in "".join(outputs)
        assert "secret.example" not in "".join(outputs)
        assert await connection.fetchval("SELECT fields ->> 'password' FROM tb_form_submission") == "hunter2"


async def test_who_sees_which_activities(world: World) -> None:
    """Requirement 3: everybody his own, moderators and admins all; roles come from the context."""
    async with people(world, world.a) as (connection, ids):
        for name in (ADA, BOB):
            await act_as(connection, ids[name])
            await call(connection, "track_page_view", page_url=f"/{name}")
        await act_as(connection, ids[EVE])
        assert await connection.fetch("SELECT FROM activities") == []
        assert await connection.fetch("SELECT FROM tenant_activities") == []
        await act_as(connection, ids[EVE], "moderator")
        assert len(await connection.fetch("SELECT FROM tenant_activities")) == 2
        await act_as(connection, ids[ADA])
        assert await connection.fetchval("SELECT data -> 'details' ->> 'page_url' FROM activities") == "/Ada"
        await act_as(connection, uuid4())
        refused = await call(connection, "track_page_view", page_url="/")
        assert (refused["success"], refused["code"]) == (False, "forbidden")


async def test_every_branch_has_both_indexes_and_the_view_no_order(world: World) -> None:
    """Requirement 2: (tenant, time, id) and (tenant, user, time, id) for each; references are qualified."""
    async with world.admin(world.a) as connection:
        for table in TABLES:
            rows = await connection.fetch(
                "SELECT pg_get_indexdef(indexrelid) AS ddl FROM pg_index WHERE indrelid = $1::text::regclass",
                f"{world.a.schema}.{table}",
            )
            keys = {row["ddl"].partition("USING ")[2] for row in rows}
            assert "btree (tenant_id, created_at, id)" in keys
            assert "btree (tenant_id, user_id, created_at, id)" in keys
        for view in (f"{world.a.schema}.v_activity", f"{world.a.schema}__api_v2.activities"):
            assert "ORDER BY" not in await connection.fetchval("SELECT pg_get_viewdef($1::text::regclass)", view)


def merged(plan: Plan) -> None:
    assert "Merge Append" in plan.types
    assert "Seq Scan" not in plan.types
    for table in TABLES:
        assert plan.rows_read(table) <= 21, table


async def test_the_newest_are_merged_from_the_indexes(ground: Ground) -> None:
    """Requirements 2 and 4, checks 17.1 and 17.3: of 60,000, 30,000 and 10,000 rows at most 21 are read per branch,
    the card is looked up for what is returned, and one type is one table."""
    world = await ground.world("shared")  # others may have left statistics behind
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        users: list[UUID] = await connection.fetchval(
            "WITH made AS (INSERT INTO tb_user (tenant_id, email, name) "
            "SELECT $1, n || '@feed.example', 'N' FROM generate_series(1, 500) AS n RETURNING id) "
            "SELECT array_agg(id) FROM made",
            world.a.id,
        )
        for table, more, values, rows in (
            ("tb_page_view", "page_url", "'/'", 60_000),
            ("tb_button_click", "button, page_url", "'b', '/'", 30_000),
            ("tb_form_submission", "form, fields", "'f', '{}'", 10_000),
        ):
            await connection.execute(
                f"INSERT INTO {table} (tenant_id, user_id, created_at, {more}) "
                f"SELECT $1, ($2::uuid[])[1 + n % 500], now() - make_interval(secs => n), "
                f"{values} FROM generate_series(1, {rows}) AS n",
                world.a.id,
                users,
            )
        await connection.execute(f"ANALYZE tb_user, {', '.join(TABLES)}")
        await connection.execute(f'SET LOCAL ROLE "{world.a.home.role_name}"')
        await connection.execute(f'SET LOCAL search_path = "{world.a.schema}__api_v2", "{world.a.schema}", extensions')
        await connection.execute(
            "SELECT set_config('app.current_tenant_id', $1, true), set_config('app.current_user_id', $2, true), "
            "set_config('app.current_roles', '{admin}', true)",
            str(world.a.id),
            str(users[0]),
        )
        page = "SELECT data FROM {} WHERE tenant_id = $1 {} ORDER BY created_at DESC, id DESC LIMIT 20"
        own = await explain(connection, page.format("activities", ""), [world.a.id])
        everybodys = await explain(connection, page.format("tenant_activities", ""), [world.a.id])
        for plan in (own, everybodys):
            merged(plan)
            assert plan.rows_read("tb_user") <= 20 * 4  # a card and its visibility, for the rows of the page only
        assert any("user_id = " in condition for condition in own.index_conditions())
        filtered = await explain(
            connection, page.format("tenant_activities", "AND type = 'form_submission'"), [world.a.id]
        )
        assert [table for table in TABLES if filtered.on(table)] == ["tb_form_submission"]
        await transaction.rollback()


async def test_the_view_is_what_the_register_says(world: World) -> None:
    """Requirement 5: types, tables and details of template.toml are those of the view."""
    declared = world.template.manifest.activity_types
    async with people(world, world.a) as (connection, ids):
        await act_as(connection, ids[ADA])
        await call(connection, "track_page_view", page_url="/")
        await call(connection, "track_button_click", button="b", page_url="/")
        await call(connection, "submit_form", form="f", fields={})
        rows = await connection.fetch(
            "SELECT type, ARRAY(SELECT jsonb_object_keys(details) ORDER BY 1) AS details FROM v_activity"
        )
        assert {row["type"]: row["details"] for row in rows} == {
            name: sorted(entry.details) for name, entry in declared.items()
        }
        used = await connection.fetch(
            "SELECT DISTINCT d.refobjid::regclass::text AS name FROM pg_rewrite r JOIN pg_depend d ON d.objid = r.oid "
            "WHERE r.ev_class = 'v_activity'::regclass AND d.classid = 'pg_rewrite'::regclass "
            "AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class"
        )
        assert {row["name"] for row in used} == {entry.table for entry in declared.values()}


async def test_a_new_type_leaves_the_old_ones_as_they_were(ground: Ground, mode: str) -> None:
    """Requirement 5: a later version adds a branch; documents of the old types do not change."""
    world = await ground.world(mode)
    registered = {
        name: {"table": entry.table, "user_column": entry.user_column, "details": list(entry.details)}
        for name, entry in world.template.manifest.activity_types.items()
    }
    registered["comment"] = {"table": "tb_comment", "user_column": "author_id", "details": ["post_id"]}
    async with world.owner(world.a) as owner:
        insert = "INSERT INTO tb_page_view (tenant_id, user_id, page_url) VALUES ($1, $2, '/kept')"
        await owner.execute(insert, world.a.id, world.a.users[0])
        before = await owner.fetch("SELECT * FROM v_activity")
        await owner.execute("SELECT tenancy.create_union_feed('v_activity', $1)", json.dumps(registered))
        assert await owner.fetch("SELECT * FROM v_activity") == before
        assert await columns(owner, "v_activity") == COLUMNS
    async with world.request(world.a) as connection, connection.transaction():
        await bind(connection, world.a)
        post = "INSERT INTO tb_post (author_id, title, content) VALUES ($1, 't', 'c') RETURNING id"
        post_id = await connection.fetchval(post, world.a.users[0])
        await connection.execute(
            "INSERT INTO tb_comment (post_id, author_id, content) VALUES ($1, $2, 'SECRET')", post_id, world.a.users[0]
        )
        (row,) = await connection.fetch("SELECT details FROM v_activity WHERE type = 'comment'")
        assert json.loads(row["details"]) == {"post_id": str(post_id)}
        create = "SELECT tenancy.create_union_feed('v_activity', '{}')"
        assert await sqlstate_of(connection, create) == "42501"  # DDL is for upgrades
