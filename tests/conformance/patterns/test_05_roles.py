"""Pattern 5: a viewer's roles come with the verified context; nothing that a caller sends adds one."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import asyncpg
import pytest

from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from tests.conformance.conftest import MODES
from tests.conformance.patterns.inputs import refused_fields, sample
from tests.conformance.patterns.people import (
    CARD,
    U1,
    U2,
    directory,
    look,
    person,
    update,
)
from tests.conformance.world import World
from tests.support.members import Members
from tests.support.tenant_calls import principal, tenant_calls


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
