"""Pattern 4: what the layers read, they read by index."""

from __future__ import annotations

from tests.conformance.conftest import Ground
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.patterns.products import enter
from tests.conformance.world import World


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
async def test_a_page_of_products_reads_what_it_shows(ground: Ground) -> None:
    """Requirement 6: by id, the 20 cheapest, the next 20 after a cursor, by SKU: all of it by index."""
    market = await ground.world("shared")
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
