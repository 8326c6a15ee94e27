"""Pattern 11: what the table of prices itself allows, even to its owner, and how a price is found in it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from tests.conformance.conftest import Ground
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.patterns.prices import as_owner
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World

OPEN = date.max  # asyncpg's word for infinity


async def test_two_facts_never_say_different_things(world: World) -> None:
    """Requirement 1: the constraints of the table itself, which hold for its owner too."""
    insert = """
        INSERT INTO tb_price (product_id, currency, decimals, price, valid_from, valid_to, known_from, known_to)
        VALUES ($1, $2, 2, 1, $3, $4, $5, $6)
    """
    known = datetime(2024, 1, 1, tzinfo=UTC)
    later = known + timedelta(days=1)
    always = datetime(9999, 1, 1, tzinfo=UTC)
    first, second, third = date(2024, 1, 1), date(2024, 2, 1), date(2024, 3, 1)
    async with as_owner(world) as prices:
        connection, product = prices.connection, prices.product
        assert await sqlstate_of(connection, insert, product, "EUR", first, third, known, always) == "00000"
        for row, expected in (
            (("EUR", second, third, later, always), "23P01"),  # valid and known at once with the first
            (("EUR", second, OPEN, known, later), "23P01"),
            (("EUR", third, OPEN, known, always), "00000"),  # other days
            (("USD", first, third, known, always), "00000"),  # another currency
            (("EUR", first, third, datetime(2023, 1, 1, tzinfo=UTC), known), "00000"),  # superseded before
            (("EUR", first, first, later, always), "23514"),
            (("EUR", second, first, later, always), "23514"),
            (("EUR", first, second, later, later), "23514"),
            (("EUR", first, second, later, known), "23514"),
            (("EUR", None, second, later, always), "23502"),
            (("EUR", first, None, later, always), "23502"),
            (("EUR", first, second, None, always), "23502"),
            (("EUR", first, second, later, None), "23502"),
        ):
            assert await sqlstate_of(connection, insert, product, *row) == expected, row


@pytest.mark.parametrize("price", ["-0.01", "1.239", "NaN", "Infinity"])
async def test_no_impossible_amount_is_stored(shared_world: World, price: str) -> None:
    """Requirement 6, in the table."""
    insert = """
        INSERT INTO tb_price (product_id, currency, decimals, price, valid_from, known_from)
        VALUES ($1, 'EUR', $2, $3::text::numeric, '2024-01-01', now())
    """
    async with as_owner(shared_world) as prices:
        assert await sqlstate_of(prices.connection, insert, prices.product, 2, price) == "23514"
        # The decimals are those of the currency, not what a row says.
        assert await sqlstate_of(prices.connection, insert, prices.product, 3, "1.239") == "23503"
        assert await sqlstate_of(prices.connection, insert, prices.product, 2, "1.2300") == "00000"


async def test_not_even_the_owner_changes_history(world: World) -> None:
    """Requirement 5: the closing of an open period is the one change that there is."""
    async with as_owner(world) as prices:
        connection = prices.connection
        known = datetime(2024, 1, 1, tzinfo=UTC)
        fact = await connection.fetchval(
            """
            INSERT INTO tb_price (product_id, currency, decimals, price, valid_from, known_from)
            VALUES ($1, 'EUR', 2, 10, '2024-01-01', $2) RETURNING id
            """,
            prices.product,
            known,
        )
        for change in ("price = 0", "valid_to = '2025-01-01'", "known_from = now()", "known_to = now(), price = 0"):
            assert await sqlstate_of(connection, f"UPDATE tb_price SET {change} WHERE id = $1", fact) == "42501", change
        assert await sqlstate_of(connection, "DELETE FROM tb_price WHERE id = $1", fact) == "42501"
        assert await sqlstate_of(connection, "TRUNCATE tb_price") == "42501"
        assert await sqlstate_of(connection, "TRUNCATE tb_product CASCADE") == "42501"
        assert await sqlstate_of(connection, "DELETE FROM tb_product WHERE id = $1", prices.product) == "23503"
        assert await sqlstate_of(connection, "UPDATE tb_currency SET decimals = 3 WHERE code = 'EUR'") == "23503"
        close = "UPDATE tb_price SET known_to = $2 WHERE id = $1"
        assert await sqlstate_of(connection, close, fact, known + timedelta(days=1)) == "00000"
        for again in (known + timedelta(days=2), datetime.max.replace(tzinfo=UTC)):
            assert await sqlstate_of(connection, close, fact, again) == "42501"  # closed once and for all


async def test_the_extension_is_installed_in_its_schema(world: World) -> None:
    """Requirement 7."""
    async with world.admin(world.a) as connection:
        schema = await connection.fetchval(
            "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
            "WHERE e.extname = 'btree_gist'"
        )
    assert schema == "extensions"


# acceptance 11.5
async def test_a_price_is_found_by_index_among_120_000_facts(ground: Ground) -> None:
    world = await ground.world("shared")
    async with world.owner(world.a) as connection:
        # The bulk is without contradictions by construction, and what checks it would take most of the time.
        await connection.execute(
            "ALTER TABLE tb_price DROP CONSTRAINT tb_price_one_at_a_time, "
            "DROP CONSTRAINT tb_price_tenant_id_product_id_fkey, "
            "DROP CONSTRAINT tb_price_tenant_id_currency_decimals_fkey"
        )
        await connection.execute(
            """
            INSERT INTO tb_product (tenant_id, sku, name, price) SELECT $1, 'S-' || n, 'Lamp', 1
            FROM generate_series(1, 400) AS n
            """,
            world.a.id,
        )
        await connection.execute("INSERT INTO tb_currency VALUES ($1, 'EUR', 2)", world.a.id)
        # Per product 100 days, each corrected twice.
        await connection.execute(
            """
            INSERT INTO tb_price (tenant_id, product_id, currency, decimals, price, valid_from, valid_to,
                                  known_from, known_to)
            SELECT $1, p.id, 'EUR', 2, n, date '2024-01-01' + n, date '2024-01-02' + n,
                   timestamptz '2024-01-01Z' + known * interval '1 day',
                   CASE WHEN known = 2 THEN 'infinity' ELSE timestamptz '2024-01-02Z' + known * interval '1 day' END
            FROM tb_product AS p, generate_series(0, 99) AS n, generate_series(0, 2) AS known
            WHERE p.tenant_id = $1
            """,
            world.a.id,
        )
        await connection.execute("ANALYZE tb_price, tb_product")
    async with world.within(world.a) as connection:
        assert await connection.fetchval("SELECT count(*) FROM tb_price") == 120_000
        product = await connection.fetchval("SELECT id FROM tb_product ORDER BY id LIMIT 1")
        for as_of, expected in ((None, 1), (datetime(2024, 1, 1, 12, tzinfo=UTC), 1)):
            find = "SELECT price FROM fn_find_price($1, 'EUR', $2, $3)"
            assert len(await connection.fetch(find, product, date(2024, 2, 1), as_of)) == expected
            plan = await explain(connection, find, (product, date(2024, 2, 1), as_of))
            assert_indexed(plan, "tb_price", "product_id =", "currency =", "known_to >=")
            assert plan.rows_read("tb_price") == 1, plan
        # A function's query gets a generic plan after a few calls.
        await connection.execute(
            f"PREPARE find (uuid, date, timestamptz) AS {find}; SET LOCAL plan_cache_mode = force_generic_plan"
        )
        plan = await explain(connection, f"EXECUTE find ('{product}', '2024-02-01', '2024-01-01 12:00Z')")
        assert_indexed(plan, "tb_price", "product_id =", "currency =", "known_to >=")
        listed = f'SELECT data FROM "{world.a.schema}__api_v2".prices WHERE tenant_id = $1'
        first_page = await explain(
            connection, f"{listed} ORDER BY product_id, currency, valid_from LIMIT 50", (world.a.id,)
        )
        assert_indexed(first_page, "tb_price", "tenant_id =")
        assert first_page.rows_read("tb_price") == 50, first_page
        of_product = await explain(connection, f"{listed} AND product_id = $2", (world.a.id, product))
        assert_indexed(of_product, "tb_price", "product_id =")
        assert of_product.rows_read("tb_price") == 100, of_product
