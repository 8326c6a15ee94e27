"""Pattern 4: a product in three layers, each the one below and a few keys more."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from tests.conformance.patterns.products import READER, add_category, add_product, call, details, document, enter, shop
from tests.conformance.world import World

LAYERS = {"v_product": "Product", "v_product_stock": "ProductStock", "v_product_full": "ProductDetails"}

PLACEHOLDER = {"__typename": "UserCard", "id": None, "name": "[deleted]"}


async def test_each_layer_is_the_one_below_and_more(world: World) -> None:
    """Requirement 1: all keys of a layer are in the next with equal values; only the type's name is its own."""
    async with shop(world) as connection:
        id_ = await add_product(connection, category_id=await add_category(connection))
        below: dict[str, Any] = {}
        for view, typename in LAYERS.items():
            layer = await document(connection, view, id_)
            assert layer is not None
            assert layer["__typename"] == typename
            assert layer == {**layer, **below, "__typename": typename}
            assert len(layer) > len(below)
            below = layer
        assert (await document(connection, "products", id_)) == await document(connection, "v_product", id_)
        assert (await details(connection, id_)) == below


async def test_a_key_of_the_base_shows_in_all_layers(world: World) -> None:
    """Requirement 1."""
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            id_ = await connection.fetchval(
                "INSERT INTO tb_product (tenant_id, sku, name, price) VALUES ($1, 'base', 'Base', 1) RETURNING id",
                world.a.id,
            )
            definition = await connection.fetchval("SELECT pg_get_viewdef('v_product'::regclass)")
            changed = definition.replace("'__typename', 'Product'", "'__typename', 'Product', 'weight', 7", 1)
            assert changed != definition
            await connection.execute(f"CREATE OR REPLACE VIEW v_product WITH (security_invoker = true) AS {changed}")
            for view, typename in LAYERS.items():
                layer = await document(connection, view, id_)
                assert layer is not None
                assert (layer["weight"], layer["__typename"]) == (7, typename)
        finally:
            await transaction.rollback()


# pattern 4.1
async def test_ten_of_the_reviews_the_newest_first(world: World) -> None:
    """Requirement 2: bounded, newest first, ties broken by id, and the whole number beside them."""
    async with shop(world) as connection:
        id_, other = await add_product(connection), await add_product(connection, "p-2")
        for product, count in ((id_, 25), (other, 1)):
            await connection.execute(
                """
                INSERT INTO tb_review (product_id, author_id, rating, content, created_at)
                SELECT $1, $2, 1 + n % 5, 'review ' || n, '2026-01-01Z'::timestamptz + (n / 2) * interval '1 day'
                FROM generate_series(1, $3::integer) AS n
                """,
                product,
                READER,
                count,
            )
        full = await details(connection, id_)
        assert full["review_count"] == 25
        newest = await connection.fetch(
            "SELECT id FROM tb_review WHERE product_id = $1 ORDER BY created_at DESC, id DESC", id_
        )
        assert [review["id"] for review in full["reviews"]] == [str(row["id"]) for row in newest[:10]]
        assert full["reviews"][0]["created_at"] == "2026-01-13T00:00:00+00:00"
        assert len((await details(connection, other))["reviews"]) == 1


# pattern 4.2
async def test_empty_is_zero_and_an_empty_list(world: World) -> None:
    """Requirements 2 and 3."""
    async with shop(world) as connection:
        full = await details(connection, await add_product(connection))
        assert full["inventory"] == {"in_stock": 0, "reserved": 0, "available": 0}
        assert (full["reviews"], full["review_count"]) == ([], 0)
        assert full["category"] is None


async def test_stock_is_added_up_over_all_locations(world: World) -> None:
    """Requirement 3."""
    async with shop(world) as connection:
        id_, other = await add_product(connection), await add_product(connection, "p-2")
        for product, location, in_stock, reserved in (
            (id_, "Bern", 5, 2),
            (id_, "Chur", 10, 0),
            (other, "Bern", 99, 9),
        ):
            done = await call(
                connection, "set_stock", product_id=product, location=location, in_stock=in_stock, reserved=reserved
            )
            assert done["data"]["product"]["id"] == str(product)
        assert (await details(connection, id_))["inventory"] == {"in_stock": 15, "reserved": 2, "available": 13}
        stock = await document(connection, "v_product_stock", other)
        assert stock is not None
        assert stock["inventory"] == {"in_stock": 99, "reserved": 9, "available": 90}


@pytest.mark.parametrize(
    ("given", "kept"),
    [("10.50", "10.50"), (10, "10.00"), (0, "0.00"), ("9999999998.99", "9999999998.99"), (0.1, "0.10")],
)
async def test_money_keeps_its_scale(world: World, given: object, kept: str) -> None:
    """Requirement 3: in the text of the document, in which 10.50 is not 10.5."""
    async with shop(world) as connection:
        id_ = await add_product(connection, price=given)
        for view in LAYERS:
            text = await connection.fetchval(f"SELECT data::text FROM {view} WHERE id = $1", id_)
            assert f'"price": {kept},' in text
        row = await connection.fetchrow("SELECT price, price_cents FROM products WHERE id = $1", id_)
        assert row is not None
        assert (str(row["price"]), row["price_cents"]) == (kept, int(Decimal(kept) * 100))


# pattern 4.3
async def test_a_review_shows_a_card_of_its_author_and_nothing_else(world: World) -> None:
    """Requirement 4."""
    async with shop(world) as connection:
        await connection.execute(
            "UPDATE tb_user SET settings = $2, phone = '111-1111', private_notes = 'noted' WHERE id = $1",
            READER,
            '{"api_key": "k-123"}',
        )
        id_ = await add_product(connection)
        await call(connection, "create_review", product_id=id_, rating=5, content="Works.")
        (review,) = (await details(connection, id_))["reviews"]
        assert review["author"] == {"__typename": "UserCard", "id": str(READER), "name": "Rea"}
        for view in LAYERS:
            text = await connection.fetchval(f"SELECT data::text FROM {view} WHERE id = $1", id_)
            for secret in ("email", "settings", "@shop.example", "k-123", "111-1111", "noted"):
                assert secret not in text


async def test_a_review_outlives_its_author(world: World) -> None:
    """Requirement 4: of an author who is gone, and of one who is hidden from the caller."""
    async with shop(world) as connection:
        id_ = await add_product(connection)
        await call(connection, "create_review", product_id=id_, rating=5, content="Works.")
        viewer = uuid4()
        for hide in ("suspended = true", "suspended = false, listed = false"):
            await connection.execute(f"UPDATE tb_user SET {hide} WHERE id = $1", READER)
            for user, roles, name in (
                (viewer, [], "[deleted]"),
                (viewer, ["admin"], "Rea"),
                (READER, [], "Rea"),
            ):
                await enter(connection, world, user, roles)
                (review,) = (await details(connection, id_))["reviews"]
                assert review["author"]["name"] == name
                assert review["content"] == "Works."
        await connection.execute("DELETE FROM tb_user WHERE id = $1", READER)
        full = await details(connection, id_)
        assert full["review_count"] == 1
        assert full["reviews"][0]["author"] == PLACEHOLDER


async def test_a_deleted_product_vanishes_from_all_layers(world: World) -> None:
    """Requirement 5."""
    async with shop(world) as connection:
        id_, stays = await add_product(connection), await add_product(connection, "p-2")
        review = await call(connection, "create_review", product_id=id_, rating=5, content="Works.")
        gone = await call(connection, "delete_product", id=id_)
        assert (gone["code"], gone["data"]) == ("deleted", {"id": str(id_)})
        for view in (*LAYERS, "products", "product_details"):
            assert await document(connection, view, id_) is None
            assert await document(connection, view, stays) is not None
        assert await connection.fetchval("SELECT deleted_at FROM tb_product WHERE id = $1", id_) is not None

        calls: dict[str, dict[str, object]] = {
            "update_product": {"id": id_, "name": "x"},
            "delete_product": {"id": id_},
            "set_stock": {"product_id": id_, "location": "Bern", "in_stock": 1},
            "create_review": {"product_id": id_, "rating": 1, "content": "x"},
            "delete_review": {"id": review["data"]["review"]["id"]},
        }
        for function, fields in calls.items():
            refused = await call(connection, function, **fields)
            assert (refused["success"], refused["code"]) == (False, "not_found"), function
        assert await add_product(connection) != id_, "its SKU is free again"


async def test_a_product_outlives_its_category(world: World) -> None:
    """Requirement 5: which shows as null, in all layers."""
    async with shop(world) as connection:
        category = await add_category(connection)
        id_ = await add_product(connection, category_id=category)
        for view in LAYERS:
            layer = await document(connection, view, id_)
            assert layer is not None
            assert layer["category"] == {"__typename": "CategoryCard", "id": str(category), "name": "Garden"}
        await connection.execute("DELETE FROM tb_category WHERE id = $1", category)
        for view in LAYERS:
            layer = await document(connection, view, id_)
            assert layer is not None
            assert layer["category"] is None
        assert await connection.fetchval("SELECT category_id FROM products WHERE id = $1", id_) is None
