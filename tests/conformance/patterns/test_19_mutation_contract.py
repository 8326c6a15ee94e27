"""Pattern 19: input that is checked, one shape of result, one transaction, the caller as the actor."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.conformance.patterns.posts import (
    add_user,
    be,
    call,
    existing,
    send,
    signals,
    stored,
    undone,
    write_comment,
    write_post,
)
from tests.conformance.world import World

KEYS = {"success", "code", "message", "data", "errors"}
UNKNOWN = "00000000-0000-0000-0000-0000000000aa"


async def rows(connection: asyncpg.Connection) -> tuple[int, ...]:
    """What a refusal leaves as it was."""
    return tuple(
        [
            await connection.fetchval(f"SELECT count(*) FROM {table}")
            for table in ("tb_user", "tb_post", "tb_comment", "tv_post_stats", "tb_change")
        ]
    )


def refused(result: dict[str, Any], code: str) -> list[dict[str, str]]:
    """The refusal's errors, after a look at the whole answer."""
    assert set(result) == KEYS
    assert (result["success"], result["code"], result["data"]) == (False, code, None)
    # One sentence that names no table, no constraint and no key.
    assert re.fullmatch(r"[A-Z][a-z ]+\.", result["message"]), result["message"]
    errors: list[dict[str, str]] = result["errors"]
    return errors


async def test_what_is_created_is_answered_as_its_view_shows_it(world: World) -> None:
    """Requirement 4, check 19.1: the document and the numbers are those of the same transaction."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        result = await call(connection, world.a, "create_comment", post_id=post, content="Well said")
        assert set(result) == KEYS
        assert (result["success"], result["code"], result["errors"]) == (True, "created", [])
        assert set(result["data"]) == {"comment"}
        comment = result["data"]["comment"]
        assert comment["content"] == "Well said"
        shown = await connection.fetchval(
            f'SELECT data FROM "{world.a.schema}__api_v2".comments WHERE id = $1', UUID(comment["id"])
        )
        assert json.loads(shown) == comment
        assert (await existing(connection, post)).data["comment_count"] == 1


async def test_what_is_undone_is_undone_with_its_projection(world: World) -> None:
    """Requirement 4, check 19.1: rollback → neither."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        before = await existing(connection, post), await rows(connection)
        nested = connection.transaction()
        await nested.start()
        await write_comment(connection, world.a, post)
        await nested.rollback()
        assert (await existing(connection, post), await rows(connection)) == before


@pytest.mark.parametrize(
    ("function", "document", "paths"),
    [
        ("create_comment", {"post_id": UNKNOWN}, ["content"]),
        ("create_comment", {"content": "x"}, ["post_id"]),
        ("create_comment", {}, ["content", "post_id"]),
        ("create_comment", None, [""]),
        ("create_comment", [], [""]),
        ("create_comment", {"post_id": "abc", "content": "x"}, ["post_id"]),
        ("create_comment", {"post_id": 5, "content": "x" * 5001}, ["content", "post_id"]),
        ("create_comment", {"post_id": UNKNOWN, "content": " "}, ["content"]),
        ("create_comment", {"post_id": UNKNOWN, "content": "x", "author_id": UNKNOWN}, ["author_id"]),
        ("create_comment", {"post_id": UNKNOWN, "content": "x", "tenant_id": UNKNOWN}, ["tenant_id"]),
        ("create_post", {"title": "", "content": "x", "is_private": "yes"}, ["is_private", "title"]),
        ("create_post", {"title": "x" * 201, "content": "x" * 20001}, ["content", "title"]),
        ("update_post", {"title": "x"}, ["id"]),
        ("delete_post", {"id": "1; DROP TABLE tb_post"}, ["id"]),
        ("delete_comment", {"id": None}, ["id"]),
    ],
)
async def test_bad_input_is_one_answer_with_a_path_per_problem(
    world: World, function: str, document: object, paths: list[str]
) -> None:
    """Requirement 1, check 19.2: nothing is written."""
    async with undone(world, world.a) as connection:
        await write_post(connection, world.a)
        before = await rows(connection)
        text = None if document is None else json.dumps(document)
        errors = refused(await send(connection, world.a, function, text), "invalid")
        assert sorted(error["path"] for error in errors) == paths
        assert all(set(error) == {"path", "code", "message"} for error in errors)
        assert await rows(connection) == before


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        ("create_comment", {"post_id": UNKNOWN, "content": "x"}),
        ("update_post", {"id": UNKNOWN}),
        ("delete_post", {"id": UNKNOWN}),
        ("delete_comment", {"id": UNKNOWN}),
    ],
)
async def test_what_is_not_there_is_a_result(world: World, function: str, fields: dict[str, str]) -> None:
    """Requirement 2, check 19.2."""
    async with undone(world, world.a) as connection:
        before = await rows(connection)
        assert refused(await call(connection, world.a, function, **fields), "not_found") == []
        assert await rows(connection) == before


async def test_the_actor_is_the_caller(world: World) -> None:
    """Requirement 3: author and tenant come from the context."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        row = await connection.fetchrow("SELECT author_id, tenant_id FROM tb_post WHERE id = $1", post)
        assert row is not None
        assert tuple(row) == (world.a.user_id, world.a.id)


async def test_who_is_no_user_of_the_tenant_writes_nothing(world: World) -> None:
    """Requirement 3: a token's user without a row, and one who is suspended."""
    async with undone(world, world.a, roles=["admin"]) as connection:
        post = await write_post(connection, world.a)
        suspended = await add_user(connection)
        assert (await call(connection, world.a, "update_person", id=suspended, suspended=True))["success"]
        before = await rows(connection)
        for user in (uuid4(), suspended):
            await be(connection, world.a, user)
            refused(await call(connection, world.a, "create_post", title="x", content="x"), "forbidden")
            refused(await call(connection, world.a, "create_comment", post_id=post, content="x"), "forbidden")
        assert await rows(connection) == before


async def test_others_posts_and_comments_are_theirs(world: World) -> None:
    """Requirement 2: a stranger is told that it is forbidden; the author may, and a moderator may delete."""
    async with undone(world, world.a) as connection:
        grace = await add_user(connection)
        post = await write_post(connection, world.a)
        comments = [await write_comment(connection, world.a, post) for _ in range(2)]
        await be(connection, world.a, grace)
        before = await rows(connection)
        refused(await call(connection, world.a, "update_post", id=post, title="Mine"), "forbidden")
        refused(await call(connection, world.a, "delete_post", id=post), "forbidden")
        refused(await call(connection, world.a, "delete_comment", id=comments[0]), "forbidden")
        assert await rows(connection) == before

        await be(connection, world.a, grace, ["moderator"])
        assert (await call(connection, world.a, "delete_comment", id=comments[0]))["success"]
        refused(await call(connection, world.a, "update_post", id=post, title="Mine"), "forbidden")
        deleted = await call(connection, world.a, "delete_post", id=post)
        assert (deleted["code"], deleted["data"]) == ("deleted", {"id": str(post)})
        assert await connection.fetchval("SELECT count(*) FROM tb_comment WHERE post_id = $1", post) == 0


async def test_a_private_post_does_not_exist_for_others(world: World) -> None:
    """Requirement 2: not_found, as of an id that was never given; nor do its comments and numbers."""
    async with undone(world, world.a) as connection:
        grace = await add_user(connection)
        post = await write_post(connection, world.a, is_private=True)
        comment = await write_comment(connection, world.a, post)
        for user, role, seen in ((world.a.user_id, "editor", 1), (grace, "editor", 0), (grace, "admin", 0)):
            await be(connection, world.a, user, [role])
            for resource in ("posts", "comments", "post_stats"):
                view = f'"{world.a.schema}__api_v2".{resource}'
                assert await connection.fetchval(f"SELECT count(*) FROM {view}") == seen
        refused(await call(connection, world.a, "create_comment", post_id=post, content="x"), "not_found")
        refused(await call(connection, world.a, "update_post", id=post, is_private=False), "not_found")
        refused(await call(connection, world.a, "delete_post", id=post), "not_found")
        refused(await call(connection, world.a, "delete_comment", id=comment), "not_found")


async def test_fields_that_are_not_given_stay(world: World) -> None:
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a, "Title", is_private=True)
        result = await call(connection, world.a, "update_post", id=post, title="New", content=None)
        document = result["data"]["post"]
        assert (document["title"], document["content"], document["is_private"]) == ("New", "Content", True)
        result = await call(connection, world.a, "update_post", id=post, is_private=False)
        assert result["data"]["post"]["is_private"] is False
        assert (await existing(connection, post)).data["is_private"] is False


async def test_one_call_is_one_change(world: World) -> None:
    """Requirement 6: the documented invocation, `SELECT * FROM f(input)`, runs the function once."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        await connection.fetch(
            f'SELECT * FROM "{world.a.schema}__api_v2".create_comment($1)',
            json.dumps({"post_id": str(post), "content": "once"}),
        )
        assert await connection.fetchval("SELECT count(*) FROM tb_comment") == 1
        assert await signals(connection, post) == 2


async def test_deleting_a_user_keeps_what_he_wrote(world: World) -> None:
    """The author of a post or comment that is gone is a placeholder, never null."""
    async with undone(world, world.a) as connection:
        grace = await add_user(connection)
        await be(connection, world.a, grace)
        post = await write_post(connection, world.a)
        await write_comment(connection, world.a, post)
        await connection.execute("DELETE FROM tb_user WHERE id = $1", grace)
        nobody = {"__typename": "UserCard", "id": None, "name": "[deleted]"}
        for view in ("posts", "comments"):
            shown = await connection.fetchval(f'SELECT data FROM "{world.a.schema}__api_v2".{view}')
            assert json.loads(shown)["author"] == nobody
        assert await stored(connection, post) is not None
