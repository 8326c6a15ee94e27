"""Pattern 4: products are deleted while somebody else begins to refer to them."""

from __future__ import annotations

import asyncio
from uuid import UUID

import asyncpg
import pytest

from tests.conformance.conftest import Ground
from tests.conformance.patterns.products import READER, add_category, add_product, call, enter
from tests.conformance.world import World


@pytest.fixture
async def market(ground: Ground) -> World:
    """Shared tables of the test's own, for what commits."""
    return await ground.world("shared")


async def waits_for(world: World, waiting: asyncpg.Connection, holding: asyncpg.Connection) -> None:
    """Return when one connection waits for a lock of the other."""
    async with world.admin(world.a) as watch:
        sql, pids = "SELECT $2 = ANY (pg_blocking_pids($1))", (waiting.get_server_pid(), holding.get_server_pid())
        async with asyncio.timeout(20):
            while not await watch.fetchval(sql, *pids):
                await asyncio.sleep(0)


async def test_what_is_being_deleted_gets_no_new_references(market: World) -> None:
    """Requirement 5, while somebody else deletes: who comes second is told that it is not there."""
    async with market.within(market.a) as connection:
        await enter(connection, market)
        await connection.execute("INSERT INTO tb_user (id, email, name) VALUES ($1, 'r@x.example', 'Rea')", READER)
        products = [await add_product(connection, f"p-{number}") for number in range(4)]
        first, second = await add_category(connection), await add_category(connection, "Kitchen")
        written = await call(connection, "create_review", product_id=products[3], rating=1, content="x")
    review = UUID(written["data"]["review"]["id"])
    stock: dict[str, object] = {"location": "Bern", "in_stock": 1}
    product: dict[str, object] = {"sku": "x", "name": "x", "price": 1}
    opinion: dict[str, object] = {"rating": 1, "content": "x"}
    soft, hard = "UPDATE tb_product SET deleted_at = now() WHERE id = $1", "DELETE FROM {} WHERE id = $1"
    races: list[tuple[str, UUID, str, dict[str, object], str]] = [
        (soft, products[0], "create_review", {**opinion, "product_id": products[0]}, "not_found"),
        (soft, products[1], "set_stock", {**stock, "product_id": products[1]}, "not_found"),
        (soft, products[2], "delete_product", {"id": products[2]}, "not_found"),
        (hard.format("tb_category"), first, "create_product", {**product, "category_id": first}, "not_found"),
        (hard.format("tb_category"), second, "update_product", {"id": products[3], "category_id": second}, "not_found"),
        (hard.format("tb_review"), review, "delete_review", {"id": review}, "not_found"),
        (hard.format("tb_user"), READER, "create_review", {**opinion, "product_id": products[3]}, "forbidden"),
    ]
    for deletion, key, function, fields, code in races:
        async with market.request(market.a) as deleting, market.request(market.a) as adding:
            transaction = deleting.transaction()
            await transaction.start()
            await enter(deleting, market)
            await deleting.execute(deletion, key)
            async with adding.transaction():
                await enter(adding, market)
                answer = asyncio.create_task(call(adding, function, **fields))
                await waits_for(market, adding, deleting)
                await transaction.commit()
                assert (await answer)["code"] == code, function


async def test_a_product_is_not_deleted_under_a_review(market: World) -> None:
    """Requirement 5: who deletes waits for those who have just begun to refer to it."""
    async with market.within(market.a) as connection:
        await enter(connection, market)
        await connection.execute("INSERT INTO tb_user (id, email, name) VALUES ($1, 'r@x.example', 'Rea')", READER)
        id_ = await add_product(connection)
    async with market.request(market.a) as adding, market.request(market.a) as deleting:
        transaction = adding.transaction()
        await transaction.start()
        await enter(adding, market)
        assert (await call(adding, "create_review", product_id=id_, rating=1, content="x"))["success"]
        async with deleting.transaction():
            await enter(deleting, market)
            answer = asyncio.create_task(call(deleting, "delete_product", id=id_))
            await waits_for(market, deleting, adding)
            await transaction.commit()
            assert (await answer)["code"] == "deleted"
