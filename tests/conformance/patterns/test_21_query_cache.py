"""Pattern 21: cached query results. An answer from the cache is the answer that would be computed now."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.posts import call, write_comment, write_post
from tests.conformance.patterns.queries import (
    ask,
    catalogue,
    computations,
    counting_world,
    expire,
    forget,
    status,
    stored_answers,
)
from tests.conformance.patterns.undone import undone
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import Member, World

POPULAR = "popular_posts"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def committed(ground: Ground, mode: str) -> World:
    return await counting_world(ground, mode)


@pytest_asyncio.fixture
async def counting(committed: World) -> World:
    """Two tenants with the query `counted` and nothing in the cache."""
    return await forget(committed)


async def refused(connection: asyncpg.Connection, member: Member, document: object) -> str:
    return await sqlstate_of(connection, f'SELECT "{member.schema}__api_v2".read_query($1)', json.dumps(document))


# The key


async def test_each_tenant_has_answers_of_its_own(counting: World) -> None:
    """Requirements 1 and 2, check 21.1: the same query as A, then as B; and a post of each."""
    world = counting
    titles: dict[UUID, str] = {}
    for member in (world.a, world.b):
        titles[member.id] = f"of {member.tenant.slug} {uuid4()}"
        async with world.within(member) as connection:
            await write_post(connection, member, titles[member.id])
    for expected in ("miss", "hit"):
        for member, other in ((world.a, world.b), (world.b, world.a)):
            async with world.within(member, read_only=False) as connection:
                answer = await ask(connection, member, POPULAR, limit=50)
                assert answer["cache"]["status"] == expected
                shown = json.dumps(answer["result"])
                assert titles[member.id] in shown
                assert titles[other.id] not in shown
                uncached = await connection.fetchval("SELECT fn_popular_posts('{\"limit\": 50}')")
                assert answer["result"] == json.loads(uncached)


async def test_no_request_reads_or_writes_the_answers_themselves(counting: World) -> None:
    """Requirements 1 and 2, check 21.1: the one way in is the function that computes what it stores."""
    world = counting
    async with world.within(world.a) as connection:
        assert await status(connection, world.a) == "miss"
    for member in (world.a, world.b):
        table = f'"{world.a.schema}".tb_cached_result'
        async with world.request(member) as connection:
            for statement in (
                f"SELECT data FROM {table}",
                f"UPDATE {table} SET data = '666'",
                f"INSERT INTO {table} (id) VALUES (gen_random_uuid())",
                f"DELETE FROM {table}",
                f"SELECT tenancy.cached_query('{table}', '{table}', 'counted', '{{}}', false)",
                "SELECT tenancy.compute_query('pg_catalog.now', '{}', NULL, '{}')",
            ):
                state = await sqlstate_of(connection, statement)
                assert state in ("42501", "3F000"), (statement, state)


async def test_what_means_the_same_shares_an_answer(counting: World) -> None:
    """Requirement 1: parameters are normalised, and nothing else is taken for the same."""
    world = counting
    some_id = uuid4()
    same: tuple[tuple[dict[str, object], ...], ...] = (
        ({}, {"count": None}),
        ({"price": 5}, {"price": 5.0}),
        ({"price": 1.1}, {"price": "1.10"}),
        ({"id": str(some_id)}, {"id": str(some_id).upper()}),
        ({"at": "2026-03-01T00:00:00Z"}, {"at": "2026-03-01T01:00:00+01:00"}),
        ({"mode": "x", "day": "2026-03-01"}, {"day": "2026-03-01", "mode": "x"}),
    )
    async with undone(world, world.a) as connection:
        for first, second in same:
            assert await status(connection, world.a, **first) == "miss", first
            assert await status(connection, world.a, **second) == "hit", second
        for other in ({"count": 6}, {"mode": "X"}, {"mode": " x"}, {"at": "2026-03-01T00:00:00.000001Z"}):
            assert await status(connection, world.a, **other) == "miss", other


async def test_a_new_version_of_the_template_finds_no_old_answer(counting: World) -> None:
    """Requirement 1: the version is part of the key."""
    world = counting
    async with world.within(world.a) as connection:
        assert await status(connection, world.a) == "miss"
    async with world.admin(world.a) as connection:
        await connection.execute(
            "INSERT INTO tenancy.manifests SELECT template, version + 1, manifest FROM tenancy.manifests"
        )
        await connection.execute("UPDATE tenancy.homes SET version = version + 1")
    try:
        async with undone(world, world.a) as connection:
            assert await status(connection, world.a) == "miss"
    finally:
        async with world.admin(world.a) as connection:
            await connection.execute("UPDATE tenancy.homes SET version = version - 1")
            await connection.execute("DELETE FROM tenancy.manifests WHERE version > $1", world.template.latest)
    async with undone(world, world.a) as connection:
        assert await status(connection, world.a) == "hit"


async def test_an_answer_is_for_one_class_of_viewers(counting: World) -> None:
    """Requirement 1: the roles that count and, where the entry says so, the user; the query knows no more of either."""
    world = counting
    ada = str(world.a.user_id)

    async def answers(**entry: object) -> list[tuple[Any, str]]:
        await catalogue(world, world.a, **entry)
        found = []
        for user, roles in ((world.a.user_id, ["moderator", "editor"]), (uuid4(), ["editor", "moderator"]),
                            (world.a.user_id, ["admin"])):  # fmt: skip
            async with world.request(world.a) as connection, connection.transaction():
                await connection.execute(
                    "SELECT tenancy.set_tenant_context($1, $2, roles => $3)", world.a.id, user, roles
                )
                answer = await ask(connection, world.a, mode="viewer", count=len(entry))
                found.append((answer["result"], answer["cache"]["status"]))
                # What the query did not see is there again.
                row = await connection.fetchrow("SELECT tenancy.current_user_id(), tenancy.current_roles()")
                assert row is not None
                assert (row[0], row[1]) == (user, roles)
        return found

    everybody: dict[str, object] = {"user": None, "roles": []}
    assert await answers() == [(everybody, "miss"), (everybody, "hit"), (everybody, "hit")]

    moderator = {"user": None, "roles": ["moderator"]}
    assert await answers(roles=["moderator"]) == [(moderator, "miss"), (moderator, "hit"), (everybody, "miss")]

    by_roles = [status for _, status in await answers(roles=None, ttl=299)]
    assert by_roles == ["miss", "hit", "miss"]

    found = await answers(per_user=True, roles=["admin"], ttl=298)
    assert [status for _, status in found] == ["miss", "miss", "miss"]
    assert found[0][0] == {"user": ada, "roles": []}
    assert found[1][0]["user"] != ada
    assert found[2][0] == {"user": ada, "roles": ["admin"]}


async def test_the_answer_has_one_text_for_every_session(counting: World) -> None:
    """Requirement 1: the zone of whoever asks first is not the zone of all."""
    world = counting
    async with undone(world, world.a) as connection:
        await connection.execute("SET LOCAL timezone = 'Asia/Tokyo'")
        answer = await ask(connection, world.a, mode="zone")
        assert answer["result"] == ["2026-03-01T00:00:00+00:00"]
        assert answer["cache"]["computed_at"].endswith("+00:00")


async def test_names_and_parameters_are_data(counting: World) -> None:
    """Requirements 1 and 2, check 21.6: 404 (P0002) and 400 (22023), and nothing was executed."""
    world = counting
    before = await computations(world, world.a)
    hostile = "x'; DELETE FROM tb_post; --"
    wrong_parameters: tuple[object, ...] = (
        {"count": hostile},
        {"id": hostile},
        {"at": "now"},
        {"day": hostile},
        {"price": hostile},
        {"unknown": 1},
        {"mode": 5},
        {hostile: 1},
        [],
        hostile,
    )
    wrong_questions: tuple[object, ...] = (
        {},
        {"name": None},
        {"name": 5},
        {"name": "counted", "sql": "SELECT 1"},
        [],
        "counted",
    )
    async with undone(world, world.a) as connection:
        for name in ("", "no_such", "fn_counted", "fn_popular_posts", "pg_sleep", "counted; SELECT 1", hostile):
            assert await refused(connection, world.a, {"name": name}) == "P0002", name
        for parameters in wrong_parameters:
            document = {"name": "counted", "parameters": parameters}
            assert await refused(connection, world.a, document) == "22023", parameters
        for question in wrong_questions:
            assert await refused(connection, world.a, question) == "22023", question
        assert await computations(world, world.a) == before
        assert await status(connection, world.a, mode=hostile) == "miss"  # a string like any other
        assert await connection.fetchval("SELECT count(*) FROM tb_user") > 0

        function = f'"{world.a.schema}__api_v2".popular_posts'
        for given in ({"limit": hostile}, {"limit": 0}, {"limit": 51}, {"name": "counted"}, {"bypass": True}):
            assert await sqlstate_of(connection, f"SELECT {function}($1)", json.dumps(given)) == "22023", given


async def test_a_function_that_could_write_is_no_query(counting: World) -> None:
    """Requirement 2: the catalogue lists what reads."""
    world = counting
    await catalogue(world, world.a, function="fn_create_post")
    async with undone(world, world.a) as connection:
        assert await refused(connection, world.a, {"name": "counted"}) == "P0002"


# What is kept, and for how long


async def test_a_change_of_a_source_is_seen_at_once(counting: World) -> None:
    """Requirement 1, check 21.3: through each mutation, without waiting for anything to expire."""
    world, member = counting, counting.a
    async with world.within(member) as connection:
        post = await write_post(connection, member, "Popular")

    async def counts() -> tuple[str, int]:
        async with world.within(member) as connection:
            answer = await ask(connection, member, POPULAR, limit=50)
        return answer["cache"]["status"], next(
            (entry["comment_count"] for entry in answer["result"] if entry["id"] == str(post)), -1
        )

    assert await counts() == ("miss", 0)
    assert await counts() == ("hit", 0)
    async with world.within(member) as connection:
        comment = await write_comment(connection, member, post)
    assert await counts() == ("miss", 1)
    assert await counts() == ("hit", 1)
    async with world.within(member) as connection:
        await call(connection, member, "delete_comment", id=comment)
    assert await counts() == ("miss", 0)
    assert await counts() == ("hit", 0)
    async with world.within(member) as connection:
        await call(connection, member, "update_post", id=post, is_private=True)
    assert await counts() == ("miss", -1)
    async with world.within(member) as connection:
        await call(connection, member, "create_project", name="has nothing to do with posts")
        assert (await call(connection, member, "update_post", id=post, is_private=True))["success"]  # no change
    assert await counts() == ("hit", -1)


async def test_what_another_tenant_changes_does_not_matter(counting: World) -> None:
    """Requirement 1: a change is a tenant's own."""
    world = counting
    async with world.within(world.a) as connection:
        assert await status(connection, world.a) == "miss"
    async with world.within(world.b) as connection:
        await write_post(connection, world.b)
    async with world.within(world.a) as connection:
        assert await status(connection, world.a) == "hit"


async def test_own_uncommitted_changes_are_seen_and_not_stored(counting: World) -> None:
    """Requirement 1: nobody else is given what may yet be undone."""
    world, member = counting, counting.a
    async with world.within(member) as connection:
        before = (await ask(connection, member))["result"]
    async with undone(world, member) as connection:
        await write_post(connection, member)
        for _ in range(2):
            answer = await ask(connection, member)
            assert (answer["result"], answer["cache"]["status"]) == (before + 1, "miss")
    async with world.within(member) as connection:
        answer = await ask(connection, member)
        assert (answer["result"], answer["cache"]["status"]) == (before, "hit")
        await write_post(connection, member)
        assert await status(connection, member, mode="another") == "miss"
    assert len(await stored_answers(world, member)) == 1


async def test_empty_answers_are_kept_and_failures_are_not(counting: World) -> None:
    """Requirement 4, check 21.2."""
    world, member = counting, counting.a
    for mode, result in (("empty", []), ("null", None)):
        for expected in ("miss", "hit"):
            async with world.within(member) as connection:
                answer = await ask(connection, member, mode=mode)
            assert (answer["result"], answer["cache"]["status"]) == (result, expected)
    before = await computations(world, member)
    async with world.request(member) as connection:
        for _ in range(2):
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("SELECT tenancy.set_tenant_context($1, $2)", member.id, member.user_id)
            assert await refused(connection, member, {"name": "counted", "parameters": {"mode": "fail"}}) == "TS001"
            assert await connection.fetchval("SELECT tenancy.current_user_id()") == member.user_id
            await transaction.commit()
    assert await computations(world, member) == before + 2


async def test_an_answer_expires(counting: World) -> None:
    """Requirement 2: after the ttl of its entry, and the age is told in seconds."""
    world, member = counting, counting.a
    async with world.within(member) as connection:
        assert await status(connection, member) == "miss"
    [row] = await stored_answers(world, member)
    assert (row["expires_at"] - row["computed_at"]).total_seconds() == 300
    async with world.owner(member) as connection:
        await connection.execute("UPDATE tb_cached_result SET computed_at = computed_at - interval '2 minutes'")
    async with undone(world, member) as connection:
        answer = await ask(connection, member)
        assert answer["cache"]["status"] == "hit"
        assert 120 <= answer["cache"]["age"] < 180
    await expire(world, member)
    async with world.within(member) as connection:
        answer = await ask(connection, member)
        assert answer["cache"]["status"] == "miss"
        assert answer["cache"]["age"] == 0
    async with undone(world, member) as connection:
        assert await status(connection, member) == "hit"


async def test_a_large_answer_is_given_and_not_kept(counting: World) -> None:
    """Requirement 2: max_bytes."""
    world, member = counting, counting.a
    async with undone(world, member) as connection:
        for _ in range(2):
            assert await status(connection, member, mode="large") == "miss"
    assert await stored_answers(world, member) == []


# What a hit costs


async def test_a_hit_writes_nothing_and_reads_in_a_read_only_transaction(counting: World) -> None:
    """Requirement 3, check 21.4: no transaction id is drawn; a miss computes without storing."""
    world, member = counting, counting.a
    async with undone(world, member, read_only=True) as connection:
        for _ in range(2):
            assert await status(connection, member, POPULAR) == "miss"
    assert await stored_answers(world, member) == []
    async with world.within(member) as connection:
        assert await status(connection, member, POPULAR) == "miss"
        assert await connection.fetchval("SELECT pg_current_xact_id_if_assigned()") is not None
    async with undone(world, member, read_only=True) as connection:
        assert await status(connection, member, POPULAR) == "hit"
    async with world.within(member) as connection:
        assert await status(connection, member, POPULAR) == "hit"
        assert await connection.fetchval("SELECT pg_current_xact_id_if_assigned()") is None


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_transaction_with_one_snapshot_reads_and_does_not_store(counting: World, isolation: Any) -> None:
    """Requirement 3: no 40001 from the cache; its snapshot may be older than the answer that is stored."""
    world, member = counting, counting.a
    async with world.request(member) as connection, connection.transaction(isolation=isolation):
        await connection.execute("SELECT tenancy.set_tenant_context($1, $2)", member.id, member.user_id)
        old = (await ask(connection, member))["result"]
        async with world.within(member) as other:
            await write_post(other, member)
        async with world.within(member) as other:
            assert (await ask(other, member))["result"] == old + 1
        answer = await ask(connection, member)
        assert (answer["result"], answer["cache"]["status"]) == (old, "miss")
    async with world.request(member) as connection, connection.transaction(isolation=isolation):
        await connection.execute("SELECT tenancy.set_tenant_context($1, $2)", member.id, member.user_id)
        answer = await ask(connection, member)
        assert (answer["result"], answer["cache"]["status"]) == (old + 1, "hit")


async def test_an_admin_may_ask_past_the_cache(counting: World) -> None:
    """Requirement 6: nobody else, and what is stored stays as it is."""
    world, member = counting, counting.a
    async with world.within(member) as connection:
        assert await status(connection, member) == "miss"
    before = await computations(world, member)
    async with undone(world, member, roles=["editor", "admin"]) as connection:
        assert await status(connection, member, bypass=True) == "bypass"
        assert await status(connection, member) == "hit"
    assert await computations(world, member) == before + 1
    async with undone(world, member, roles=["moderator"]) as connection:
        assert await refused(connection, member, {"name": "counted", "bypass": True}) == "42501"


async def test_without_a_tenant_there_is_no_answer(counting: World) -> None:
    """Requirement 2: and it says so."""
    async with counting.request(counting.a) as connection:
        assert await refused(connection, counting.a, {"name": "counted"}) == "42501"
