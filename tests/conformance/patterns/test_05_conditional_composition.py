"""Pattern 5: what a viewer sees of a person follows from the verified context and one matrix, and from nothing else."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import pytest

from tests.conformance.conftest import Ground
from tests.conformance.patterns.calls import call
from tests.conformance.patterns.people import (
    PEOPLE,
    ROLES,
    SUSPENDED,
    U1,
    U2,
    UNLISTED,
    add_people,
    directory,
    fields_of,
    look,
    matrix,
    person,
    update,
)
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.patterns.posts import add_user, until_blocked
from tests.conformance.world import World, bind


async def test_the_database_has_the_matrix_of_the_template(world: World) -> None:
    """Requirement 2."""
    async with directory(world) as connection:
        stored = json.loads(await connection.fetchval("SELECT fn_people_visibility()"))
        assert {group: set(viewers) for group, viewers in stored.items()} == matrix(world)
        assert "self" not in matrix(world)["private_notes"]
        volatility = "SELECT provolatile FROM pg_proc WHERE oid = 'fn_people_visibility()'::regprocedure"
        assert await connection.fetchval(volatility) == b"i"


@pytest.mark.parametrize("viewer", ROLES)
async def test_each_cell_of_the_matrix_is_what_the_viewer_gets(world: World, viewer: str) -> None:
    """Requirements 2 and 3: what may not be seen is absent from `data` and null as a column."""
    async with directory(world, *ROLES[viewer]) as connection:
        seen = {group for group, viewers in matrix(world).items() if viewer in viewers} - {"hidden"}
        document = await person(connection, U2)
        assert document is not None
        assert set(document) == {"__typename"}.union(*(fields_of(group) for group in seen))
        expected = {
            "__typename": "Person", "id": str(U2), "name": "Udo", "bio": "", "avatar_url": None,
            "email": "udo@people.example", "phone": "222-2222", "stats": {"projects_owned": 1, "memberships": 1},
            "listed": True, "suspended": False, "private_notes": "n2-secret", "created_at": document["created_at"],
        }  # fmt: skip
        assert document == {name: value for name, value in expected.items() if name in document}

        row = await connection.fetchrow("SELECT email, phone FROM people WHERE id = $1", U2)
        assert row is not None
        assert row["email"] == ("udo@people.example" if "email" in seen else None)
        assert row["phone"] == ("222-2222" if "phone" in seen else None)


@pytest.mark.parametrize("viewer", ROLES)
async def test_who_is_hidden_is_hidden_from_whom_the_matrix_says(world: World, viewer: str) -> None:
    """Requirement 4."""
    for hidden in (SUSPENDED, UNLISTED):
        caller, roles = (hidden, []) if viewer == "self" else ROLES[viewer]
        async with directory(world, caller, roles) as connection:
            found = await person(connection, hidden)
            assert (found is not None) == (viewer in matrix(world)["hidden"])
            listed = {row["id"] for row in await connection.fetch("SELECT id FROM people")}
            assert (hidden in listed) == (viewer in matrix(world)["hidden"])


async def test_the_view_asks_the_matrix(world: World) -> None:
    """Requirement 2: another matrix, another answer; nothing of it is written down a second time in the view."""
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            for name, value in (("tenant_id", world.a.id), ("user_id", uuid4())):
                await connection.execute("SELECT set_config($1, $2, true)", f"app.current_{name}", str(value))
            await add_people(connection)
            for group in set(matrix(world)) - {"card", "hidden"}:
                for shown in (["public"], []):
                    changed = json.dumps({**{g: ["public"] for g in matrix(world)}, group: shown})
                    await connection.execute(
                        "CREATE OR REPLACE FUNCTION fn_people_visibility() RETURNS jsonb IMMUTABLE "
                        f"RETURN '{changed}'::jsonb"
                    )
                    document = json.loads(
                        await connection.fetchval(
                            "SELECT data FROM v_person WHERE tenant_id = $1 AND id = $2", world.a.id, U2
                        )
                    )
                    assert (group in document) == bool(shown)
        finally:
            await transaction.rollback()


# pattern 5.2
async def test_the_example_of_two_users(world: World) -> None:
    """Requirements 1 and 3."""
    async with directory(world, U1) as connection:
        me, other = await person(connection, U1), await person(connection, U2)
        assert me is not None
        assert other is not None
        assert me["phone"] == "111-1111"
        assert "private_notes" not in me
        assert not {"email", "phone", "stats", "private_notes"} & set(other)
    async with directory(world, U1, ["admin"]) as connection:
        other = await person(connection, U2)
        assert other is not None
        assert other["private_notes"] == "n2-secret"
    async with directory(world, U1, ["moderator"]) as connection:
        other = await person(connection, U2)
        assert other is not None
        assert other["email"] == "udo@people.example"
        assert "phone" not in other


async def test_nobody_reads_the_notes_about_himself(world: World) -> None:
    """Requirement 2: not even an admin, who is `self` to himself."""
    async with directory(world, U1, ["admin", "moderator"]) as connection:
        me = await person(connection, U1)
        assert me is not None
        assert "private_notes" not in me
        assert "n1-secret" not in json.dumps(me)


async def test_a_hidden_person_answers_as_one_who_does_not_exist(world: World) -> None:
    """Requirement 4, in SQL."""
    async with directory(world, U1) as connection:
        for id_ in (SUSPENDED, UNLISTED, uuid4()):
            assert await person(connection, id_) is None
        answers = [
            await update(connection, id=id_, bio="x") for id_ in (SUSPENDED, UNLISTED, uuid4(), world.b.users[0])
        ]
        assert answers[0]["code"] == "not_found"
        assert all(answer == answers[0] for answer in answers)
        cards = {row["id"] for row in await connection.fetch("SELECT id FROM v_author_card")}
        assert cards & set(PEOPLE) == {U1, U2}


async def test_who_is_deleted_before_his_turn_is_not_found(ground: Ground) -> None:
    """Requirement 4: seen when the update began, gone when it could be made."""
    world = await ground.world("shared")
    member = world.a
    async with world.within(member) as connection:
        await add_user(connection, member.user_id)
    async with world.request(member) as deleting, world.admin(member) as watcher:
        transaction = deleting.transaction()
        await transaction.start()
        await bind(deleting, member)
        await deleting.execute("DELETE FROM tb_user WHERE id = $1", member.user_id)
        async with world.within(member) as updating:
            given = {"id": member.user_id, "bio": "x"}
            answer = asyncio.create_task(call(updating, member, "update_person", given))
            await until_blocked(watcher, updating)
            await transaction.commit()
            assert (await answer)["code"] == "not_found"


async def test_nothing_else_shows_telephone_numbers_or_notes(world: World) -> None:
    """Requirement 3: `users` of API 1 and 2 lists accounts with their e-mail, as it promised, and nothing more."""
    async with directory(world, U1, ["admin"]) as connection:
        manifest = world.template.manifest
        for name, resource in manifest.resources.items():
            for api in resource.api or tuple(manifest.api):
                if name == "people":
                    continue
                view = f'"{world.a.schema}__api_v{api}".{name}'
                shown = await connection.fetch(f"SELECT to_jsonb(v)::text AS shown FROM {view} AS v")
                text = "".join(row["shown"] for row in shown)
                for found in PEOPLE.values():
                    assert str(found["phone"]) not in text, name
                    assert str(found["private_notes"]) not in text, name
                assert '"private_notes"' not in text, name


# pattern 5.4
async def test_one_of_twenty_thousand_people_is_found_by_key(ground: Ground) -> None:
    """Requirement 5: the id reaches the primary key, and stats are counted for the rows of the page alone."""
    world = await ground.world("shared")
    async with world.owner(world.a) as connection:
        await connection.execute(
            """
            INSERT INTO tb_user (tenant_id, email, name)
            SELECT $1, 'u' || n || '@many.example', 'user ' || n FROM generate_series(1, 20000) AS n
            """,
            world.a.id,
        )
        await connection.execute(
            """
            INSERT INTO tb_project (tenant_id, name, owner_id)
            SELECT u.tenant_id, u.name, u.id FROM tb_user AS u WHERE u.tenant_id = $1
            """,
            world.a.id,
        )
        await connection.execute(
            """
            INSERT INTO tb_project_member (tenant_id, project_id, user_id)
            SELECT p.tenant_id, p.id, p.owner_id FROM tb_project AS p WHERE p.tenant_id = $1
            ON CONFLICT DO NOTHING
            """,
            world.a.id,
        )
        for table in ("tb_user", "tb_project", "tb_project_member"):
            await connection.execute(f"ANALYZE {table}")

    for roles in ([], ["admin"]):
        async with world.request(world.a) as connection, connection.transaction():
            await look(connection, world.a, U1, roles)
            people = f'"{world.a.schema}__api_v2".people'
            id_ = await connection.fetchval(f"SELECT id FROM {people} WHERE name = 'user 777'")
            plan = await explain(
                connection, f"SELECT data FROM {people} WHERE tenant_id = $1 AND id = $2", (world.a.id, id_)
            )
            assert_indexed(plan, "tb_user", "tenant_id", "(id = ")
            assert "Function Scan" not in plan.types
            assert plan.rows_read("tb_user") == 1
            assert "Seq Scan" not in plan.types

            page = await explain(
                connection, f"SELECT data FROM {people} WHERE tenant_id = $1 ORDER BY name, id LIMIT 20", (world.a.id,)
            )
            assert "tb_user_name" in page.indexes
            assert "Seq Scan" not in page.types
            assert page.rows_read("tb_user") == 20
            for table in ("tb_project", "tb_project_member"):
                assert sum(node["Actual Loops"] for node in page.on(table)) == (20 if roles else 0)
