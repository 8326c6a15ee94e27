"""Pattern 4: products, their stock and their reviews are written through functions."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.conformance.patterns.products import READER, add_category, add_product, call, details, enter, shop
from tests.conformance.world import World


@pytest.mark.parametrize("price", ["1.005", 0.001, -1, "-0.01", "1e3", "many", 10**10, None])
async def test_what_is_no_amount_of_money_is_refused(shared_world: World, price: object) -> None:
    """Requirement 3: refused, and not rounded."""
    async with shop(shared_world) as connection:
        refused = await call(connection, "create_product", sku="p", name="p", price=price)
        assert (refused["code"], [problem["path"] for problem in refused["errors"]]) == ("invalid", ["price"])
        id_ = await add_product(connection)
        if price is not None:
            assert (await call(connection, "update_product", id=id_, price=price))["code"] == "invalid"
        assert await connection.fetchval("SELECT count(*) FROM tb_product") == 1


async def test_stock_is_set_as_a_whole_or_not(world: World) -> None:
    async with shop(world) as connection:
        id_ = await add_product(connection)
        place: dict[str, object] = {"product_id": id_, "location": "Bern"}
        done = await call(connection, "set_stock", **place, in_stock=5, reserved=3)
        assert done["data"]["product"]["__typename"] == "ProductDetails"
        assert (await call(connection, "set_stock", **place, in_stock=2))["code"] == "conflict"
        refused = await call(connection, "set_stock", **place, in_stock=2, reserved=3)
        assert (refused["code"], refused["errors"][0]["path"]) == ("invalid", "reserved")
        assert (await call(connection, "set_stock", **place, in_stock=-1))["code"] == "invalid"
        assert (await call(connection, "set_stock", location="Bern", product_id=uuid4(), in_stock=1))[
            "code"
        ] == "not_found"
        kept = await call(connection, "set_stock", **place, in_stock=4)
        assert kept["data"]["product"]["inventory"] == {"in_stock": 4, "reserved": 3, "available": 1}


async def test_products_are_created_and_updated_through_functions(world: World) -> None:
    async with shop(world) as connection:
        id_, category = await add_product(connection), await add_category(connection)
        assert (await call(connection, "create_product", sku="p-1", name="x", price=1))["code"] == "conflict"
        refused = await call(connection, "create_product", sku="p-2", name="x", price=1, category_id=uuid4())
        assert refused["code"] == "not_found"
        done = await call(connection, "update_product", id=id_, name="New", price="2", category_id=category)
        found = done["data"]["product"]
        assert (found["name"], found["price"], found["category"]["id"]) == ("New", 2, str(category))
        done = await call(connection, "update_product", id=id_, name="Newer")
        assert (done["data"]["product"]["price"], done["data"]["product"]["category"]) == (2, found["category"])
        assert (await call(connection, "update_product", id=id_, category_id=uuid4()))["code"] == "not_found"
        done = await call(connection, "update_product", id=id_, category_id=None)
        assert (done["data"]["product"]["name"], done["data"]["product"]["category"]) == ("Newer", None)
        assert (await call(connection, "update_product", id=uuid4(), name="x"))["code"] == "not_found"
        assert (await call(connection, "delete_product", id="p-1"))["code"] == "invalid"


async def test_the_author_of_a_review_is_the_caller(world: World) -> None:
    async with shop(world) as connection:
        id_ = await add_product(connection)
        fields: dict[str, object] = {"product_id": id_, "rating": 5, "content": "Works."}
        assert (await call(connection, "create_review", **fields, author_id=world.a.users[0]))["code"] == "invalid"
        assert (await call(connection, "create_review", **{**fields, "rating": 6}))["code"] == "invalid"
        assert (await call(connection, "create_review", **{**fields, "product_id": uuid4()}))["code"] == "not_found"
        made = await call(connection, "create_review", **fields)
        review = made["data"]["review"]
        assert (review["author"]["id"], review["rating"], review["content"]) == (str(READER), 5, "Works.")

        await enter(connection, world, uuid4())  # a token's user without a row here
        assert (await call(connection, "create_review", **fields))["code"] == "forbidden"
        await enter(connection, world, world.a.users[0])
        await connection.execute("UPDATE tb_user SET suspended = true WHERE id = $1", world.a.users[0])
        assert (await call(connection, "create_review", **fields))["code"] == "forbidden"
        assert (await call(connection, "delete_review", id=review["id"]))["code"] == "forbidden"
        assert (await call(connection, "delete_review", id=uuid4()))["code"] == "not_found"
        await enter(connection, world, world.a.users[0], ["moderator"])
        assert (await call(connection, "delete_review", id=review["id"]))["code"] == "deleted"

        await enter(connection, world)
        made = await call(connection, "create_review", **fields)
        gone = await call(connection, "delete_review", id=made["data"]["review"]["id"])
        assert (gone["success"], gone["data"]) == (True, {"id": made["data"]["review"]["id"]})
        assert (await details(connection, id_))["review_count"] == 0
