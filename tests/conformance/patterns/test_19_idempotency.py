"""Pattern 19, requirement 5: a call that bears a key runs once, whoever waits for it and however it is repeated."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.posts import (
    Result,
    add_user,
    be,
    opened,
    signals,
    undone,
    until_blocked,
    write_post,
)
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import Member, World

ONCE = "SELECT tenancy.call_once($1, $2::text::regproc, $3)"


async def once(
    connection: asyncpg.Connection, member: Member, key: str, function: str, /, **fields: object
) -> tuple[str, Result]:
    """The answer as text and as a result."""
    text = await connection.fetchval(
        ONCE, key, f'"{member.schema}__api_v2"."{function}"', json.dumps(fields, default=str)
    )
    return text, json.loads(text)


async def count(connection: asyncpg.Connection, table: str = "tb_comment") -> int:
    return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def test_the_same_call_twice_is_one_comment(world: World) -> None:
    """Check 19.4: equal to the byte, and the order of the input's keys is no difference."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        first, result = await once(connection, world.a, "k", "create_comment", post_id=post, content="once")
        assert result["success"]
        second, _ = await once(connection, world.a, "k", "create_comment", content="once", post_id=post)
        assert second == first
        assert await count(connection) == 1
        assert await signals(connection, post) == 2
        _, other = await once(connection, world.a, "k2", "create_comment", post_id=post, content="once")
        assert other["data"]["comment"]["id"] != result["data"]["comment"]["id"]


async def test_a_key_belongs_to_one_call(world: World) -> None:
    """Requirement 5: another body, or another function, is a conflict that changes and reveals nothing."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        await once(connection, world.a, "k", "create_comment", post_id=post, content="first")
        for function, fields in (
            ("create_comment", {"post_id": post, "content": "other"}),
            ("delete_post", {"post_id": post, "content": "first"}),
        ):
            text, result = await once(connection, world.a, "k", function, **fields)
            assert (result["success"], result["code"], result["data"]) == (False, "conflict", None)
            assert "first" not in text
        assert await count(connection) == 1


async def test_a_refusal_is_an_answer_too(world: World) -> None:
    """The same question gets the same answer, even where it would be another one by now."""
    async with undone(world, world.a) as connection:
        id_ = uuid4()
        _, refusal = await once(connection, world.a, "k", "delete_post", id=id_)
        assert refusal["code"] == "not_found"
        await connection.execute(
            "INSERT INTO tb_post (id, author_id, title, content) VALUES ($1, $2, 'x', 'x')", id_, world.a.user_id
        )
        assert (await once(connection, world.a, "k", "delete_post", id=id_))[1] == refusal


FAILING = """
    CREATE FUNCTION fn_failing(input jsonb) RETURNS jsonb
    LANGUAGE plpgsql SET search_path FROM CURRENT
    AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '23514'; END $$;
    CREATE FUNCTION fn_silent(input jsonb) RETURNS jsonb RETURN NULL::jsonb;
    GRANT EXECUTE ON FUNCTION fn_failing(jsonb), fn_silent(jsonb) TO "{role}";
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def altered(ground: Ground, mode: str) -> World:
    """With functions that fail or say nothing, and one that nobody was granted."""
    world = await ground.world(mode)
    async with world.owner(world.a) as owner:
        await owner.execute(FAILING.format(role=world.a.home.role_name))
        await owner.execute("CREATE FUNCTION fn_hidden(input jsonb) RETURNS jsonb RETURN input")
    return world


async def test_an_exception_leaves_the_key_free(altered: World) -> None:
    async with undone(altered, altered.a) as connection:
        assert await sqlstate_of(connection, ONCE, "k", f'"{altered.a.schema}".fn_failing', "{}") == "23514"
        assert await sqlstate_of(connection, ONCE, "k", f'"{altered.a.schema}".fn_silent', "{}") == "XX000"
        post = await write_post(connection, altered.a)
        _, result = await once(connection, altered.a, "k", "create_comment", post_id=post, content="x")
        assert result["success"]


async def test_keys_are_each_users_own(world: World) -> None:
    """Two users of a tenant may choose the same key, and neither learns what the other was answered."""
    async with undone(world, world.a) as connection:
        grace = await add_user(connection)
        mine, _ = await once(connection, world.a, "k", "create_post", title="Mine", content="x", is_private=True)
        await be(connection, world.a, grace)
        theirs, result = await once(connection, world.a, "k", "create_post", title="Mine", content="x", is_private=True)
        assert result["success"]
        assert theirs != mine
        assert result["data"]["post"]["author"]["id"] == str(grace)


async def test_no_request_reads_or_writes_the_ledger(world: World) -> None:
    """Stored results may hold what only their caller may see."""
    async with undone(world, world.a) as connection:
        await once(connection, world.a, "k", "create_post", title="Mine", content="x")
        for statement in (
            "SELECT * FROM tb_idempotency_key",
            "SELECT count(*) FROM tb_idempotency_key",
            "INSERT INTO tb_idempotency_key (key, function, input_hash) VALUES ('x', 'x', '')",
            "UPDATE tb_idempotency_key SET result = '{}'",
            "DELETE FROM tb_idempotency_key",
            "SELECT tenancy.claim_call('tb_idempotency_key', 'k', 'x', '{}')",
            "SELECT tenancy.keep_result('tb_idempotency_key', 'k', '{}')",
        ):
            assert await sqlstate_of(connection, statement) == "42501", statement


async def test_an_answer_once_kept_stays(world: World) -> None:
    """The way in that call_once() uses is open to its caller; it cannot replace an answer."""
    async with undone(world, world.a) as connection:
        first, _ = await once(connection, world.a, "k", "create_post", title="Mine", content="x")
        await connection.execute("SELECT fn_keep_result('k', '{\"forged\": true}')")
        assert (await once(connection, world.a, "k", "create_post", title="Mine", content="x"))[0] == first


@pytest.mark.parametrize(
    ("routine", "sqlstate"),
    [
        ("tenancy.erase_tenant", "42883"),  # takes no jsonb
        ("tenancy.grant_home", "42883"),
        ("{home}.fn_hidden", "42501"),
        ("pg_catalog.no_such", "42883"),
        ("pg_sleep(1); --", "42601"),
    ],
)
async def test_it_calls_nothing_that_its_caller_may_not_call(altered: World, routine: str, sqlstate: str) -> None:
    """With the caller's rights: a function of the home that nobody was granted is refused here as well."""
    async with undone(altered, altered.a) as connection:
        name = routine.format(home=altered.a.schema)
        found = await sqlstate_of(connection, ONCE, "k", name, "{}")
        assert found in (sqlstate, "42602"), found  # a name that is none


async def test_a_second_call_waits_for_the_first(crowd: World) -> None:
    """Requirement 5: it runs once although both came at the same moment, and both get the one answer."""
    async with crowd.within(crowd.a) as connection:
        post = await write_post(connection, crowd.a)
    async with opened(crowd, crowd.a) as first, opened(crowd, crowd.a) as second:
        answer, _ = await once(first, crowd.a, "both", "create_comment", post_id=post, content="x")
        waiting = asyncio.create_task(once(second, crowd.a, "both", "create_comment", post_id=post, content="x"))
        async with crowd.admin(crowd.a) as watcher:
            await until_blocked(watcher, second)
        await first.execute("COMMIT")
        assert (await waiting)[0] == answer
        await second.execute("COMMIT")
    async with crowd.within(crowd.a) as connection:
        assert await connection.fetchval("SELECT count(*) FROM tb_comment WHERE post_id = $1", post) == 1


async def test_a_second_call_takes_over_when_the_first_is_undone(crowd: World) -> None:
    async with crowd.within(crowd.a) as connection:
        post = await write_post(connection, crowd.a)
    async with opened(crowd, crowd.a) as first, opened(crowd, crowd.a) as second:
        await once(first, crowd.a, "lost", "create_comment", post_id=post, content="x")
        waiting = asyncio.create_task(once(second, crowd.a, "lost", "create_comment", post_id=post, content="x"))
        async with crowd.admin(crowd.a) as watcher:
            await until_blocked(watcher, second)
        await first.execute("ROLLBACK")
        _, result = await waiting
        assert result["success"]
        await second.execute("COMMIT")
    async with crowd.within(crowd.a) as connection:
        kept = await connection.fetch("SELECT id FROM tb_comment WHERE post_id = $1", post)
        assert [id_ for (id_,) in kept] == [UUID(result["data"]["comment"]["id"])]


async def test_many_repetitions_at_once_are_one_call(crowd: World) -> None:
    async with crowd.within(crowd.a) as connection:
        post = await write_post(connection, crowd.a)

    async def repeat(key: str) -> str:
        async with crowd.within(crowd.a) as connection:
            return (await once(connection, crowd.a, key, "create_comment", post_id=post, content="x"))[0]

    for round_ in range(5):
        answers = await asyncio.gather(*(repeat(f"round {round_}") for _ in range(6)))
        assert len(set(answers)) == 1
    async with crowd.within(crowd.a) as connection:
        assert await connection.fetchval("SELECT count(*) FROM tb_comment WHERE post_id = $1", post) == 5


async def test_tenants_do_not_share_keys(crowd: World) -> None:
    answers = []
    for member in (crowd.a, crowd.b):
        async with crowd.within(member) as connection:
            answers.append((await once(connection, member, "shared", "create_post", title="x", content="x"))[0])
    assert answers[0] != answers[1]


async def test_old_keys_are_purged(crowd: World) -> None:
    """After a day the key is free again."""
    async with crowd.within(crowd.a) as connection:
        first, _ = await once(connection, crowd.a, "old", "create_post", title="x", content="x")
    async with crowd.owner(crowd.a) as connection:
        purge = "SELECT tenancy.purge_idempotency_keys('tb_idempotency_key', interval '24 hours')"
        assert await connection.fetchval(purge) == 0
        await connection.execute(
            "UPDATE tb_idempotency_key SET created_at = now() - interval '25 hours' WHERE key = 'old'"
        )
        assert await connection.fetchval(purge) == 1
    async with crowd.within(crowd.a) as connection:
        assert (await once(connection, crowd.a, "old", "create_post", title="x", content="x"))[0] != first
