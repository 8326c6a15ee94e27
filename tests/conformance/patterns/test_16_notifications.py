"""Pattern 16, polymorphic notifications: one inbox about posts, comments, people and nothing in particular."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.conformance.conftest import Ground
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.patterns.posts import until_blocked
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import Member, World, bind

ADA, BOB, EVE = "Ada", "Bob", "Eve"


@asynccontextmanager
async def people(world: World, member: Member) -> AsyncIterator[tuple[asyncpg.Connection, dict[str, UUID]]]:
    """A transaction with three users in it, which is undone; `act_as` says who is asking."""
    async with world.request(member) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f'SET LOCAL search_path = "{member.schema}__api_v2", "{member.schema}", extensions')
        await bind(connection, member)
        ids = {}
        for name in (ADA, BOB, EVE):
            insert = "INSERT INTO tb_user (email, name) VALUES ($1, $2) RETURNING id"
            ids[name] = await connection.fetchval(insert, f"{name.lower()}@secret.example", name)
        yield connection, ids
        await transaction.rollback()


async def act_as(connection: asyncpg.Connection, user: UUID, *roles: str) -> None:
    """What set_tenant_context does for another user of the same tenant."""
    await connection.execute(
        "SELECT tenancy.set_tenant_context(tenancy.current_tenant_id(), $1, roles => $2)", user, list(roles)
    )


async def call(connection: asyncpg.Connection, function: str, **given: Any) -> dict[str, Any]:
    answer = await connection.fetchval(f"SELECT {function}($1)", json.dumps(given, default=str))
    result: dict[str, Any] = json.loads(answer)
    return result


async def inbox(connection: asyncpg.Connection) -> list[dict[str, Any]]:
    rows = await connection.fetch("SELECT data FROM notifications ORDER BY created_at DESC, id DESC")
    return [json.loads(row["data"]) for row in rows]


async def post_of(connection: asyncpg.Connection, author: UUID, title: str = "Hello") -> UUID:
    await act_as(connection, author)
    created = await call(connection, "create_post", title=title, content="text")
    return UUID(created["data"]["post"]["id"])


async def test_a_like_is_told_resolved_and_outlives_its_subject(world: World) -> None:
    """Requirements 2 and 3, check 16.1: ok, then hidden or deleted; the message stays and is never null."""
    async with people(world, world.a) as (connection, ids):
        post = await post_of(connection, ids[ADA])
        await act_as(connection, ids[BOB])
        for _ in range(2):  # liking twice tells once
            assert (await call(connection, "like_post", id=post))["success"]
        await act_as(connection, ids[ADA])
        (told,) = await inbox(connection)
        assert told["message"] == "Bob liked your post"
        assert told["actor"]["name"] == BOB
        entity = told["entity"]
        assert {key: entity[key] for key in ("__typename", "state", "title")} == {
            "__typename": "Post", "state": "ok", "title": "Hello",
        }  # fmt: skip
        assert entity["author"]["__typename"] == "UserCard"
        assert "secret.example" not in json.dumps(told)

        await call(connection, "delete_post", id=post)
        (told,) = await inbox(connection)
        assert told["entity"] == {"__typename": "Post", "state": "deleted"}
        assert told["message"] == "Bob liked your post"


async def test_what_the_reader_may_not_see_is_hidden(world: World) -> None:
    """Requirement 2, check 16.1: decided with the reader's rights; the title of a private post is nowhere."""
    async with people(world, world.a) as (connection, ids):
        post = await post_of(connection, ids[ADA], "PRIVATE TITLE")
        await act_as(connection, ids[BOB])
        comment = await call(connection, "create_comment", post_id=post, content="first")
        await act_as(connection, ids[ADA])
        await call(connection, "update_post", id=post, is_private=True)
        await connection.execute(
            "INSERT INTO tb_notification (user_id, type, actor_id, entity_type, entity_id, data) VALUES "
            """($1, 'post_liked', $2, 'Post', $3, '{"actor_name": "Ada"}'),
               ($1, 'post_commented', $2, 'Comment', $4, '{"actor_name": "Ada"}')""",
            ids[EVE],
            ids[ADA],
            post,
            UUID(comment["data"]["comment"]["id"]),
        )
        await act_as(connection, ids[EVE])
        told = await inbox(connection)
        assert [entry["entity"]["state"] for entry in told] == ["hidden", "hidden"]
        assert "PRIVATE TITLE" not in json.dumps(told)
        assert "first" not in json.dumps(told)


async def test_people_are_cards_and_names_are_current(world: World) -> None:
    """Requirements 2 and 3: a follower is a card, with his present name, or with the stored one when he is gone."""
    async with people(world, world.a) as (connection, ids):
        await act_as(connection, ids[BOB])
        await call(connection, "follow_person", id=ids[ADA])
        await connection.execute("UPDATE tb_user SET name = 'Robert' WHERE id = $1", ids[BOB])
        await act_as(connection, ids[ADA])
        (told,) = await inbox(connection)
        assert told["message"] == "Robert follows you"
        assert told["entity"]["user"]["name"] == "Robert"
        assert "secret.example" not in json.dumps(told)

        await connection.execute("DELETE FROM tb_user WHERE id = $1", ids[BOB])
        (told,) = await inbox(connection)
        assert told["message"] == "Bob follows you"
        assert told["actor"] == {"__typename": "UserCard", "id": None, "name": "[deleted]"}
        assert told["entity"] == {"__typename": "User", "state": "deleted"}


@pytest.mark.parametrize(
    ("type_", "entity_type", "data"),
    [
        ("no_such_type", "Post", '{"actor_name": "Bob"}'),
        ("post_liked", "post", '{"actor_name": "Bob"}'),
        ("post_liked", "Comment", '{"actor_name": "Bob"}'),
        ("post_liked", None, '{"actor_name": "Bob"}'),
        ("post_liked", "Post", "5"),
        ("post_liked", "Post", "[]"),
        ("post_liked", "Post", "{}"),
        ("post_liked", "Post", '{"actor_name": null}'),
        ("announcement", "Post", '{"text": "x"}'),
        ("announcement", None, "{}"),
    ],
)
async def test_the_lists_are_closed(world: World, type_: str, entity_type: str | None, data: str) -> None:
    """Requirement 1, check 16.2: an unknown type, entity or missing key is refused by the table itself."""
    insert = "INSERT INTO tb_notification (user_id, type, entity_type, entity_id, data) VALUES ($1, $2, $3, $4, $5)"
    async with people(world, world.a) as (connection, ids):
        entity = uuid4() if entity_type else None
        assert await sqlstate_of(connection, insert, ids[ADA], type_, entity_type, entity, data) == "23514"
        half = await sqlstate_of(connection, insert, ids[ADA], "post_liked", "Post", None, '{"actor_name": "Bob"}')
        assert half == "23514"
        accepted = await sqlstate_of(connection, insert, ids[ADA], "announcement", None, None, '{"text": "x"}')
        assert accepted == "00000"


async def test_bad_input_is_a_result(world: World) -> None:
    """Requirement 1: over functions the same is a structured refusal, and nothing is written."""
    async with people(world, world.a) as (connection, ids):
        await act_as(connection, ids[BOB], "admin")
        for function, given, code in (
            ("like_post", {}, "invalid"),
            ("like_post", {"id": "abc"}, "invalid"),
            ("like_post", {"id": uuid4()}, "not_found"),
            ("follow_person", {"id": uuid4()}, "not_found"),
            ("follow_person", {"id": ids[BOB]}, "conflict"),
            ("announce", {"text": ""}, "invalid"),
            ("announce", {"text": "x", "user_id": uuid4()}, "not_found"),
            ("read_notification", {"id": uuid4()}, "not_found"),
            ("read_all_notifications", {"user_id": ids[ADA]}, "invalid"),
            ("purge_notifications", {"older_than_days": 0}, "invalid"),
        ):
            result = await call(connection, function, **given)
            assert (result["success"], result["code"]) == (False, code), function
        assert await connection.fetchval("SELECT count(*) FROM tb_notification") == 0
        await act_as(connection, uuid4())
        for function, given in (("like_post", {"id": uuid4()}), ("follow_person", {"id": ids[ADA]})):
            assert (await call(connection, function, **given))["code"] == "forbidden"
        await act_as(connection, ids[BOB])
        for function, given in (
            ("announce", {"text": "x"}),
            ("purge_notifications", {"older_than_days": 1}),
            ("report_dangling_notifications", {}),
        ):
            assert (await call(connection, function, **given))["code"] == "forbidden", function


async def test_reading_is_counted_once(world: World) -> None:
    """Requirement 5, check 16.4: all read → 100, then 0; one read keeps its first time; unread count 0."""
    async with people(world, world.a) as (connection, ids):
        await connection.execute(
            "INSERT INTO tb_notification (user_id, type, data) "
            """SELECT $1, 'announcement', '{"text": "x"}' FROM generate_series(1, 101)""",
            ids[ADA],
        )
        await act_as(connection, ids[ADA])
        assert (await call(connection, "count_unread_notifications"))["data"] == {"count": 101}
        one = await connection.fetchval("SELECT id FROM notifications LIMIT 1")
        assert (await call(connection, "read_notification", id=one))["data"]["count"] == 1
        again = await call(connection, "read_notification", id=one)
        assert again["data"]["count"] == 0
        assert again["data"]["notification"]["read"] is True
        assert (await call(connection, "read_all_notifications"))["data"] == {"count": 100}
        assert (await call(connection, "read_all_notifications"))["data"] == {"count": 0}
        assert (await call(connection, "count_unread_notifications"))["data"] == {"count": 0}


async def test_old_ones_are_purged_and_dangling_ones_listed(world: World) -> None:
    """Requirement 5: retention in bites, and a report of what refers to nothing."""
    async with people(world, world.a) as (connection, ids):
        post = await post_of(connection, ids[ADA])
        await act_as(connection, ids[BOB])
        await call(connection, "like_post", id=post)
        await connection.execute(
            "INSERT INTO tb_notification (user_id, type, data, created_at) "
            """VALUES ($1, 'announcement', '{"text": "old"}', now() - interval '31 days')""",
            ids[ADA],
        )
        await act_as(connection, ids[EVE], "admin")
        assert (await call(connection, "report_dangling_notifications"))["data"] == {"count": 0, "items": []}
        assert (await call(connection, "purge_notifications", older_than_days=30))["data"] == {"count": 1}
        assert (await call(connection, "purge_notifications", older_than_days=30))["data"] == {"count": 0}
        await connection.execute("DELETE FROM tb_post WHERE id = $1", post)
        report = (await call(connection, "report_dangling_notifications"))["data"]
        assert report["count"] == 1
        assert report["items"][0]["entity_id"] == str(post)


async def test_an_inbox_is_ones_own(world: World) -> None:
    """Requirement 6, check 16.5: another user's inbox is empty to everybody else, in and outside the tenant."""
    async with people(world, world.a) as (connection, ids):
        await act_as(connection, ids[EVE], "admin")
        announced = await call(connection, "announce", text="to Ada", user_id=ids[ADA])
        assert announced["data"] == {"count": 1}
        one = await connection.fetchval("SELECT id FROM tb_notification")
        for other in (ids[BOB], ids[EVE]):
            await act_as(connection, other, "admin")
            assert await inbox(connection) == []
            assert await connection.fetch("SELECT FROM notifications WHERE user_id = $1", ids[ADA]) == []
            assert (await call(connection, "read_notification", id=one))["code"] == "not_found"
            assert (await call(connection, "read_all_notifications"))["data"] == {"count": 0}
        await act_as(connection, ids[ADA])
        assert [(entry["message"], entry["actor"]) for entry in await inbox(connection)] == [("to Ada", None)]


async def test_nobody_is_told_who_is_just_leaving(ground: Ground) -> None:
    """Requirement 5: whatever tells somebody while he is being deleted goes on without him, and does not fail."""
    world = await ground.world("shared")
    async with world.request(world.a) as telling, world.request(world.a) as deleting, world.admin(world.a) as watcher:
        for function, given, code in (
            ("like_post", {"id": None}, "updated"),
            ("create_comment", {"post_id": None, "content": "x"}, "created"),
            ("follow_person", {"id": ADA}, "not_found"),
            ("announce", {"text": "x", "user_id": ADA}, "not_found"),
            ("announce", {"text": "x"}, "created"),
        ):
            async with telling.transaction():
                await bind(telling, world.a)
                bob, ada = uuid4(), uuid4()
                for user in (bob, ada):
                    insert = "INSERT INTO tb_user (id, email, name) VALUES ($1, $2, 'x')"
                    await telling.execute(insert, user, f"{user}@x.example")
                post = "INSERT INTO tb_post (author_id, title, content) VALUES ($1, 'x', 'x') RETURNING id"
                named = {None: await telling.fetchval(post, ada), ADA: ada}
            transaction = deleting.transaction()
            await transaction.start()
            await bind(deleting, world.a)
            await deleting.execute("DELETE FROM tb_user WHERE id = $1", ada)
            async with telling.transaction():
                await telling.execute(f'SET LOCAL search_path = "{world.a.schema}__api_v2", "{world.a.schema}"')
                await bind(telling, world.a)
                await act_as(telling, bob, "admin")
                told = {key: named.get(value, value) for key, value in given.items()}
                answer = asyncio.create_task(call(telling, function, **told))
                await until_blocked(watcher, telling)
                await transaction.commit()
                assert (await answer)["code"] == code, function
                assert await telling.fetchval("SELECT count(*) FROM tb_notification WHERE user_id = $1", ada) == 0


async def test_both_lists_are_read_from_their_indexes(shared_world: World) -> None:
    """Requirement 4: newest 20 and unread newest 20 of 1,000 of one user among many, in index order, 20 rows read."""
    world = shared_world
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        user = await connection.fetchval(
            "INSERT INTO tb_user (tenant_id, email, name) VALUES ($1, 'n@x.example', 'N') RETURNING id", world.a.id
        )
        await connection.execute(
            "INSERT INTO tb_notification (tenant_id, user_id, type, data, created_at, read_at) "
            """SELECT $1, CASE WHEN n % 10 = 0 THEN $2::uuid ELSE $3::uuid END, 'announcement', '{"text": "x"}',
                      now() - make_interval(secs => n), CASE WHEN n % 20 = 0 THEN now() END
               FROM generate_series(1, 10000) AS n""",
            world.a.id,
            user,
            world.a.users[0],
        )
        await connection.execute("ANALYZE tb_notification")
        await connection.execute("SELECT set_config('app.current_tenant_id', $1, true)", str(world.a.id))
        await connection.execute("SELECT set_config('app.current_user_id', $1, true)", str(user))
        await connection.execute(f'SET LOCAL ROLE "{world.a.home.role_name}"')
        page = "SELECT data FROM v_notification WHERE tenant_id = $1 {} ORDER BY created_at DESC, id DESC LIMIT 20"
        for condition, index in (("", "tb_notification_newest"), ("AND read_at IS NULL", "tb_notification_unread")):
            plan = await explain(connection, page.format(condition), [world.a.id])
            assert_indexed(plan, "tb_notification", "tenant_id = ", "user_id = ")
            assert index in plan.indexes
            assert plan.rows_read("tb_notification") <= 21
            assert "Sort" not in plan.types
        await transaction.rollback()
