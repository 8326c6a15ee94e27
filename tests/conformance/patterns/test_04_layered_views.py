"""Pattern 4: a product in three layers, each the one below and a few keys more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.conformance.conftest import Ground
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.world import World

LAYERS = {"v_product": "Product", "v_product_stock": "ProductStock", "v_product_full": "ProductDetails"}
PLACEHOLDER = {"__typename": "UserCard", "id": None, "name": "[deleted]"}
READER = UUID(int=0x4000)


async def enter(connection: asyncpg.Connection, world: World, user: UUID = READER, roles: Sequence[str] = ()) -> None:
    schema = world.a.schema
    await connection.execute("SELECT tenancy.set_tenant_context($1, $2, roles => $3)", world.a.id, user, list(roles))
    await connection.execute(f'SET LOCAL search_path = "{schema}__api_v2", "{schema}", extensions, pg_temp')


@asynccontextmanager
async def shop(world: World) -> AsyncIterator[asyncpg.Connection]:
    """A transaction of a user of the tenant, undone afterwards, with API version 2 on its path."""
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await enter(connection, world)
            await connection.execute(
                "INSERT INTO tb_user (id, email, name) VALUES ($1, 'reader@shop.example', 'Rea')", READER
            )
            yield connection
        finally:
            await transaction.rollback()


async def call(connection: asyncpg.Connection, function: str, **fields: object) -> dict[str, Any]:
    given = json.dumps({name: str(value) if isinstance(value, UUID) else value for name, value in fields.items()})
    return dict(json.loads(await connection.fetchval(f"SELECT {function}($1)", given)))


async def add_product(connection: asyncpg.Connection, sku: str = "p-1", **fields: object) -> UUID:
    made = await call(
        connection, "create_product", **{"sku": sku, "name": f"Product {sku}", "price": "10.50", **fields}
    )
    assert made["success"], made
    return UUID(made["data"]["product"]["id"])


async def document(connection: asyncpg.Connection, view: str, id_: UUID) -> dict[str, Any] | None:
    found = await connection.fetchval(f"SELECT data FROM {view} WHERE id = $1", id_)
    return None if found is None else dict(json.loads(found))


async def details(connection: asyncpg.Connection, id_: UUID) -> dict[str, Any]:
    found = await document(connection, "product_details", id_)
    assert found is not None
    return found


async def add_category(connection: asyncpg.Connection, name: str = "Garden") -> UUID:
    sql = "INSERT INTO tb_category (slug, name, path) VALUES ($1, $2, $1::text::ltree) RETURNING id"
    return UUID(str(await connection.fetchval(sql, name.lower(), name)))


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


async def test_each_foreign_key_is_served_by_an_index(world: World) -> None:
    """Requirement 6: led by tenant_id and the key, and then what the list is sorted by."""
    async with world.owner(world.a) as connection:
        keys = await connection.fetch(
            """
            SELECT k.conrelid::regclass::text AS table_name, ARRAY(
                SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS c (number, place)
                JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.number ORDER BY place) AS columns
            FROM pg_constraint k
            WHERE k.contype = 'f' AND k.conrelid = ANY (ARRAY['tb_product', 'tb_inventory', 'tb_review']::regclass[])
            """
        )
        indexes = await connection.fetch(
            """
            SELECT i.indrelid::regclass::text AS table_name, i.indpred IS NOT NULL AS partial, ARRAY(
                SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS c (number, place)
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = c.number ORDER BY place) AS columns
            FROM pg_index i
            WHERE i.indrelid = ANY (ARRAY['tb_product', 'tb_inventory', 'tb_review']::regclass[])
            """
        )
    whole = {(row["table_name"], tuple(row["columns"])) for row in indexes if not row["partial"]}
    assert len(keys) == 4
    for key in keys:
        length = len(key["columns"])
        assert any((key["table_name"], tuple(key["columns"])) == (table, led[:length]) for table, led in whole), key
    assert ("tb_review", ("tenant_id", "product_id", "created_at", "id")) in whole
    assert ("tb_product", ("tenant_id", "category_id", "created_at", "id")) in whole


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
        assert (await call(connection, "delete_review", id=review["id"]))["code"] == "forbidden"
        assert (await call(connection, "delete_review", id=uuid4()))["code"] == "not_found"
        await enter(connection, world, world.a.users[0], ["moderator"])
        assert (await call(connection, "delete_review", id=review["id"]))["code"] == "deleted"

        await enter(connection, world)
        made = await call(connection, "create_review", **fields)
        gone = await call(connection, "delete_review", id=made["data"]["review"]["id"])
        assert (gone["success"], gone["data"]) == (True, {"id": made["data"]["review"]["id"]})
        assert (await details(connection, id_))["review_count"] == 0


@pytest.fixture
async def market(ground: Ground) -> World:
    """Shared tables of the test's own, for what commits."""
    return await ground.world("shared")


async def fill(world: World) -> None:
    """2,000 products with two locations each, and 20,000 reviews, of a tenant among two."""
    async with world.owner(world.a) as connection:
        for statement in (
            """
            INSERT INTO tb_product (tenant_id, sku, name, price)
            SELECT $1, 'sku ' || n, 'product ' || n, (n * 7919 % 2000) / 4.0 FROM generate_series(1, 2000) AS n
            """,
            """
            INSERT INTO tb_inventory (tenant_id, product_id, location, in_stock)
            SELECT p.tenant_id, p.id, location, 5
            FROM tb_product AS p, unnest(ARRAY['Bern', 'Chur']) AS location WHERE p.tenant_id = $1
            """,
            """
            INSERT INTO tb_review (tenant_id, product_id, author_id, rating, content, created_at)
            SELECT p.tenant_id, p.id, u.id, 3, 'review ' || n, '2026-01-01Z'::timestamptz + n * interval '1 hour'
            FROM tb_product AS p, generate_series(1, 10) AS n,
                 (SELECT id FROM tb_user WHERE tenant_id = $1 LIMIT 1) AS u WHERE p.tenant_id = $1
            """,
            """
            INSERT INTO tb_user (tenant_id, email, name)
            SELECT $1, 'u' || n || '@many.example', 'user ' || n FROM generate_series(1, 2000) AS n
            """,
        ):
            await connection.execute(statement, world.a.id)
        await connection.execute("ANALYZE tb_product, tb_inventory, tb_review, tb_user")


# pattern 4.5
async def test_a_page_of_products_reads_what_it_shows(market: World) -> None:
    """Requirement 6: by id, the 20 cheapest, the next 20 after a cursor, by SKU: all of it by index."""
    await fill(market)
    async with market.request(market.a) as connection, connection.transaction():
        await enter(connection, market)
        tenant = market.a.id
        id_ = await connection.fetchval("SELECT id FROM products WHERE sku = 'sku 777'")

        one = await explain(
            connection, "SELECT data FROM product_details WHERE tenant_id = $1 AND id = $2", (tenant, id_)
        )
        assert "Seq Scan" not in one.types
        assert_indexed(one, "tb_product", "tenant_id", "(id = ")
        assert_indexed(one, "tb_review", "tenant_id", "(product_id = ")
        assert_indexed(one, "tb_inventory", "tenant_id", "(product_id = ")
        assert (one.rows_read("tb_product"), one.rows_read("tb_inventory")) == (1, 2)

        cheapest = "SELECT data FROM product_details WHERE tenant_id = $1 {} ORDER BY price_cents, id LIMIT 20"
        page = await explain(connection, cheapest.format(""), (tenant,))
        last = await connection.fetchrow("SELECT price_cents, id FROM products ORDER BY 1, 2 LIMIT 1 OFFSET 19")
        assert last is not None
        after = cheapest.format("AND (price_cents, id) > ($2::bigint, $3::uuid)")
        following = await explain(connection, after, (tenant, *last))
        assert_indexed(following, "tb_product", "ROW(price_cents, id) >")
        for plan in (page, following):
            assert "Seq Scan" not in plan.types
            assert "Sort" not in [node["Node Type"] for node in plan.nodes if node.get("Parent Relationship") is None]
            assert "tb_product_price" in plan.indexes
            assert plan.rows_read("tb_product") == 20
            assert [node["Actual Loops"] for node in plan.on("tb_review")] == [20, 20]  # the count and the list
            assert [node["Actual Loops"] for node in plan.on("tb_inventory")] == [20]

        by_sku = await explain(
            connection, "SELECT data FROM products WHERE tenant_id = $1 AND sku = $2", (tenant, "sku 777")
        )
        assert_indexed(by_sku, "tb_product", "tenant_id", "(sku = ")
        assert by_sku.rows_read("tb_product") == 1

        cheap = await explain(connection, "SELECT id, price FROM product_details WHERE tenant_id = $1", (tenant,))
        assert {str(node["Relation Name"]) for node in cheap.nodes if "Relation Name" in node} == {"tb_product"}


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
