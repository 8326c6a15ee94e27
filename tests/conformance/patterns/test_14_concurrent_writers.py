"""Pattern 14 under load: whoever writes the tree at the same time as others, it stays one tree without rings."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.categories import Categories, categories
from tests.conformance.world import World, bind

ROUNDS = 30  # of opposite moves; without the lock the first few fail


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def committing(ground: Ground) -> World:
    """Two tenants in shared tables for tests that keep what they write."""
    return await ground.world("shared")


async def test_a_category_that_something_refers_to_stays(committing: World) -> None:
    """Requirement 4: a refusal is a result, not an error of the database."""
    world = committing
    async with world.owner(world.a) as connection:
        await connection.execute(
            "CREATE TABLE tb_shelf (tenant_id uuid, id uuid, category_id uuid, "
            "FOREIGN KEY (tenant_id, category_id) REFERENCES tb_category (tenant_id, id))"
        )
    async with world.within(world.a) as connection:
        id_ = await Categories(connection).add("Books")
    async with world.owner(world.a) as connection:
        await connection.execute("INSERT INTO tb_shelf VALUES ($1, $1, $2)", world.a.id, id_)
    async with world.within(world.a) as connection:
        assert await Categories(connection).refusal("delete_category", id=id_, policy="cascade") == "conflict"
    async with world.owner(world.a) as connection:
        await connection.execute("DROP TABLE tb_shelf; DELETE FROM tb_category")


async def opposite(connection: asyncpg.Connection, world: World, id_: UUID, parent: UUID) -> str:
    """The code of a move in a transaction of its own."""
    async with connection.transaction():
        await bind(connection, world.a)
        return str((await Categories(connection).call("move_category", id=id_, parent_id=parent))["code"])


async def test_of_two_opposite_moves_one_is_refused(committing: World) -> None:
    """Requirement 4: moves serialise per tenant tree. Without the lock both pass the check and fail at commit."""
    world = committing
    async with world.within(world.a) as connection:
        one, two = [await Categories(connection).add(name) for name in ("one", "two")]
    async with world.request(world.a) as first, world.request(world.a) as second:
        for _ in range(ROUNDS):
            codes = await asyncio.gather(opposite(first, world, one, two), opposite(second, world, two, one))
            assert sorted(codes) == ["conflict", "updated"]
            async with world.within(world.a) as connection:
                tree = Categories(connection)
                assert len(await tree.names()) == 2
                await tree.assert_sound()
                await tree.succeed("move_category", id=one if codes[0] == "updated" else two)
    async with world.owner(world.a) as connection:
        await connection.execute("DELETE FROM tb_category")


async def test_many_writers_leave_one_tree(committing: World) -> None:
    """Requirement 4: create, rename, move, reorder and delete at the same time, each in a transaction of its own."""
    world = committing
    dice = random.Random(14)

    async def write(connection: asyncpg.Connection, number: int) -> None:
        for step in range(25):
            async with connection.transaction():
                await bind(connection, world.a)
                tree = Categories(connection)
                ids = [row["id"] for row in await connection.fetch("SELECT id FROM v_category ORDER BY id")] or [None]
                id_, other = dice.choice(ids), dice.choice(ids)
                name = f"n{number}-{step}"
                calls: list[tuple[str, dict[str, Any]]] = [
                    ("create_category", {"name": name, "parent_id": id_}),
                    ("create_category", {"name": name, "parent_id": other}),
                    ("create_category", {"name": name}),
                    ("move_category", {"id": id_, "parent_id": other}),
                    ("rename_category", {"id": id_, "name": name, "slug": name}),
                    ("reorder_category", {"id": id_}),
                    ("delete_category", {"id": id_, "policy": dice.choice(["cascade", "reparent"])}),
                ]
                function, given = dice.choice(calls)
                result = await tree.call(function, **given)
                assert result["success"] or result["code"] in ("conflict", "not_found", "invalid")

    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(world.request(world.a)) for _ in range(4)]
        await asyncio.gather(*(write(connection, number) for number, connection in enumerate(connections)))
    async with world.within(world.a) as connection:
        await Categories(connection).assert_sound()


async def test_tenants_do_not_wait_for_each_other(shared_world: World) -> None:
    """Requirement 4: the lock is the tenant's."""
    async with categories(shared_world) as ours, categories(shared_world, shared_world.b) as theirs:
        for tree in (ours, theirs):
            await tree.connection.execute("SET LOCAL lock_timeout = '1s'")
            await tree.succeed("move_category", id=await tree.add("x"), parent_id=await tree.add("y"))
        # Who adds leaves does not wait for others who do.
        async with categories(shared_world, shared_world.b) as again:
            await again.connection.execute("SET LOCAL lock_timeout = '1ms'")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await again.add("z")
    async with categories(shared_world) as one, categories(shared_world) as two:
        await one.add("x")
        await two.connection.execute("SET LOCAL lock_timeout = '1ms'")
        await two.add("y")
