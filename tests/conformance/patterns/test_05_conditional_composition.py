"""Pattern 5: what a viewer sees of a person follows from the verified context and one matrix, and from nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.templates.manifest import FieldRule
from tests.conformance.conftest import MODES, Ground
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.world import Member, World
from tests.support.members import Members
from tests.support.tenant_calls import principal, tenant_calls

U1, U2, SUSPENDED, UNLISTED = (UUID(int=0x5000 + number) for number in range(4))
PEOPLE: dict[UUID, dict[str, Any]] = {
    U1: {"name": "Una", "phone": "111-1111", "private_notes": "n1-secret"},
    U2: {"name": "Udo", "phone": "222-2222", "private_notes": "n2-secret"},
    SUSPENDED: {"name": "Sue", "phone": "333-3333", "private_notes": "n3-secret", "suspended": True},
    UNLISTED: {"name": "Ulf", "phone": "444-4444", "private_notes": "n4-secret", "listed": False},
}
CARD = {"id", "name", "avatar_url", "bio", "created_at"}
ROLES: dict[str, tuple[UUID, list[str]]] = {  # class of viewer → who looks at U2, and with which roles
    "public": (U1, []),
    "self": (U2, []),
    "moderator": (U1, ["moderator"]),
    "admin": (U1, ["admin"]),
}


async def add_people(connection: asyncpg.Connection) -> None:
    for id_, person in PEOPLE.items():
        columns = {"id": id_, "email": f"{person['name']}@people.example".lower(), **person}
        values = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        await connection.execute(f"INSERT INTO tb_user ({', '.join(columns)}) VALUES ({values})", *columns.values())
    project = await connection.fetchval("INSERT INTO tb_project (name, owner_id) VALUES ('p', $1) RETURNING id", U2)
    for user in (U1, U2):
        await connection.execute("INSERT INTO tb_project_member (project_id, user_id) VALUES ($1, $2)", project, user)


async def look(connection: asyncpg.Connection, member: Member, viewer: UUID, roles: Sequence[str] = ()) -> None:
    """Continue as another caller of the tenant."""
    await connection.execute("SELECT tenancy.set_tenant_context($1, $2, roles => $3)", member.id, viewer, list(roles))


@asynccontextmanager
async def directory(world: World, viewer: UUID = U1, roles: Sequence[str] = ()) -> AsyncIterator[asyncpg.Connection]:
    """A transaction of a caller among the four people, undone afterwards, with API version 2 on its path."""
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await look(connection, world.a, viewer, roles)
            schema = world.a.schema
            await connection.execute(f'SET LOCAL search_path = "{schema}__api_v2", "{schema}", extensions, pg_temp')
            await add_people(connection)
            yield connection
        finally:
            await transaction.rollback()


async def person(connection: asyncpg.Connection, id_: UUID) -> dict[str, Any] | None:
    found = await connection.fetchval("SELECT data FROM people WHERE id = $1", id_)
    return None if found is None else dict(json.loads(found))


async def update(connection: asyncpg.Connection, **fields: object) -> dict[str, Any]:
    given = json.dumps({name: str(value) if isinstance(value, UUID) else value for name, value in fields.items()})
    return dict(json.loads(await connection.fetchval("SELECT update_person($1)", given)))


def matrix(world: World) -> dict[str, set[str]]:
    return {group: set(viewers) for group, viewers in world.template.manifest.visibility["people"].items()}


def fields_of(group: str) -> set[str]:
    return CARD if group == "card" else {group}


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


@pytest.mark.parametrize(
    "roles", [["Admin"], ["ADMIN"], [" admin"], ["administrator"], ["moderator,admin"], ["{admin}"], [""], ["user"]]
)
async def test_a_role_is_matched_letter_for_letter(shared_world: World, roles: list[str]) -> None:
    """Requirement 1: unknown roles make a public viewer."""
    async with directory(shared_world, U1, roles) as connection:
        assert await connection.fetchval("SELECT fn_person_viewer($1)", U2) == "public"
        document = await person(connection, U2)
        assert document is not None
        assert set(document) == {"__typename", *CARD}


async def test_without_a_context_a_viewer_is_public_and_sees_nothing(world: World) -> None:
    """Requirement 1."""
    async with world.request(world.a) as connection:
        await connection.execute(f'SET search_path = "{world.a.schema}", extensions, pg_temp')
        assert await connection.fetchval("SELECT fn_person_viewer($1)", world.a.users[0]) == "public"
        if world.mode == "shared":
            assert await connection.fetch("SELECT data FROM v_person") == []
        else:
            for row in await connection.fetch("SELECT data FROM v_person"):
                assert set(json.loads(row["data"])) == {"__typename", *CARD}


# pattern 5.1
async def test_naming_a_role_in_sql_changes_nothing(world: World) -> None:
    """Requirement 1: no function of the directory takes the viewer, and no other setting is read."""
    async with directory(world, U1) as connection:
        before = await person(connection, U2)
        for name in ("app.role", "app.roles", "app.user_role", "app.current_role", "app.is_admin"):
            await connection.execute("SELECT set_config($1, 'admin', true)", name)
        assert await person(connection, U2) == before
        arguments = await connection.fetch(
            "SELECT proname, pg_get_function_identity_arguments(oid) AS arguments FROM pg_proc "
            "WHERE proname = ANY ($1)",
            ["fn_person_viewer", "fn_people_visibility"],
        )
        assert {(row["proname"], row["arguments"]) for row in arguments} == {
            ("fn_person_viewer", "person_id uuid"),
            ("fn_people_visibility", ""),
        }
        for extra in ({"role": "admin"}, {"roles": ["admin"]}, {"viewer": "admin"}, {"viewer_id": str(U2)}):
            refused = await update(connection, id=U2, private_notes="mine", **extra)
            assert (refused["code"], refused["data"]) == ("invalid", None)


def sample(rule: FieldRule) -> object:
    """A value that a rule allows, without knowing what it is for."""
    low = rule.min or 0
    match rule.type:
        case "string":
            return rule.values[0] if rule.values else "admin".ljust(low, "n")[: rule.max]
        case "uuid":
            return str(U1)
        case "integer" | "decimal":
            return max(low, 1)
        case "boolean":
            return True
        case "date":
            return "2026-01-01"
        case "timestamp":
            return "2026-01-01T00:00:00Z"
        case "object":
            return {name: sample(nested) for name, nested in (rule.fields or {}).items()}
        case "array":
            return [sample(rule.items)] * max(low, 1) if rule.items else []


async def refused_fields(connection: asyncpg.Connection, call: str, given: Mapping[str, object]) -> set[str]:
    """The paths that a function refuses: by its result, or by an exception where it answers no mutation result."""
    try:
        async with connection.transaction():
            result = json.loads(await connection.fetchval(call, json.dumps(given)))
    except asyncpg.InvalidParameterValueError as error:
        problems = json.loads(str(error.detail))
    else:
        assert (result["success"], result["code"]) == (False, "invalid"), result
        problems = result["errors"]
    return {problem["path"] for problem in problems}


# pattern 6.5
async def test_no_function_makes_its_caller_an_admin(world: World) -> None:
    """Requirement 1, over every declared function: roles are no input, and no call leaves the caller with one."""
    manifest = world.template.manifest
    async with directory(world, U1) as connection:
        for name, function in manifest.functions.items():
            for api in function.api or tuple(manifest.api):
                call = f'SELECT "{world.a.schema}__api_v{api}".{name}($1)'
                filled = {field: sample(rule) for field, rule in function.input.items()}
                for wish in ({"role": "admin"}, {"roles": ["admin"]}, {"is_admin": True}, {"current_roles": "{admin}"}):
                    refused = await refused_fields(connection, call, {**filled, **wish})
                    assert next(iter(wish)) in refused, (name, refused)
                try:
                    async with connection.transaction():
                        await connection.execute(call, json.dumps(filled))
                except asyncpg.PostgresError:
                    pass  # what the sample values are good for is not of interest here, only what they leave behind
                assert await connection.fetchval("SELECT tenancy.current_roles()") == [], name
                assert await connection.fetchval("SELECT fn_person_viewer($1)", U2) == "public", name


async def test_people_write_of_themselves_and_admins_of_others(world: World) -> None:
    async with directory(world, U1) as connection:
        done = await update(connection, id=U1, phone="999", bio="Hello", avatar_url="https://x.example/u.png")
        assert (done["success"], done["data"]["person"]["phone"]) == (True, "999")
        assert (done["data"]["person"]["bio"], done["data"]["person"]["name"]) == ("Hello", "Una")
        assert (await update(connection, id=U1, phone=None))["data"]["person"]["phone"] is None
        gone = await update(connection, id=U1, listed=False)
        assert gone["data"]["person"]["listed"] is False
        for field, value in (("private_notes", "mine"), ("suspended", False)):
            assert (await update(connection, id=U1, **{field: value}))["code"] == "forbidden"
        for field, value in (("phone", "1"), ("private_notes", "x"), ("suspended", True), ("bio", "x")):
            assert (await update(connection, id=U2, **{field: value}))["code"] == "forbidden"
        assert (await update(connection, id=U2))["code"] == "forbidden"

        await look(connection, world.a, U1, ["moderator"])
        for field, value in (("private_notes", "x"), ("suspended", True)):
            assert (await update(connection, id=U2, **{field: value}))["code"] == "forbidden"

        await look(connection, world.a, U1, ["admin"])
        done = await update(connection, id=U2, private_notes="seen", suspended=True)
        assert (done["data"]["person"]["private_notes"], done["data"]["person"]["suspended"]) == ("seen", True)
        assert (await update(connection, id=U2, phone="1"))["code"] == "forbidden"
        for field, value in (("private_notes", "mine"), ("suspended", False)):
            assert (await update(connection, id=U1, **{field: value}))["code"] == "forbidden", "an admin of himself"

        await look(connection, world.a, U1)
        assert await person(connection, U2) is None
        stored = await connection.fetchval("SELECT ARRAY[phone, bio, private_notes] FROM tb_user WHERE id = $1", U2)
        assert stored == ["222-2222", "", "seen"]


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


@pytest.mark.parametrize("isolation", MODES)
async def test_over_http_a_role_comes_from_the_token_alone(
    databases: Databases, cluster: Cluster, installation_id: UUID, isolation: str
) -> None:
    """Requirements 1 and 4 (5.1): body, query and header change nothing; hidden and unknown ids answer alike."""
    members = Members(databases, cluster, installation_id)
    member = await members.add("people", isolation)
    async with tenant_calls(members) as calls:
        admin, public = principal(member, uuid4(), "admin"), principal(member, uuid4())
        ids = []
        for name in ("seen", "hidden"):
            made = await calls.post(public, "/api/v2/rpc/create_user", {"email": f"{name}@x.example", "name": name})
            ids.append(made.json()["data"]["user"]["id"])
        noted = await calls.post(
            admin, "/api/v2/rpc/update_person", {"id": ids[1], "suspended": True, "private_notes": "n"}
        )
        assert noted.json()["data"]["person"]["private_notes"] == "n"

        honest = await calls.get(public, f"/api/v2/people/{ids[0]}")
        assert set(honest.json()) == {"__typename", *CARD}
        assert "email" in (await calls.get(admin, f"/api/v2/people/{ids[0]}")).json()
        headers = {"role": "admin", "x-role": "admin", "x-roles": "admin", "x-user-id": ids[0]}
        with_header = await calls.get(public, f"/api/v2/people/{ids[0]}", headers=headers)
        assert with_header.json() == honest.json()
        for path in (f"/api/v2/people/{ids[0]}", "/api/v2/people"):
            for query in ({"role": "admin"}, {"roles": "admin"}, {"viewer": "admin"}):
                assert (await calls.get(public, path, params=query)).status_code == 400
        for extra in ({"role": "admin"}, {"roles": ["admin"]}):
            body = {"id": ids[0], "private_notes": "mine", **extra}
            assert (await calls.post(public, "/api/v2/rpc/update_person", body)).status_code == 422
        refused = await calls.post(public, "/api/v2/rpc/update_person", {"id": ids[0], "private_notes": "mine"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")

        assert [found["id"] for found in (await calls.get(public, "/api/v2/people")).json()] == [ids[0]]
        answers = [await calls.get(public, f"/api/v2/people/{id_}") for id_ in (ids[1], uuid4())]
        assert [answer.status_code for answer in answers] == [404, 404]
        bodies = [answer.json() for answer in answers]
        for body in bodies:
            del body["instance"]  # the path that was asked for
        assert bodies[0] == bodies[1]
        assert dict(answers[0].headers) == {
            **answers[1].headers, "content-length": answers[0].headers["content-length"]
        }  # fmt: skip
        assert (await calls.get(public, "/api/v1/people")).status_code == 404
