"""Pattern 11: prices with the days on which they are valid and the time during which they were taken to be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.calls import call, replace_in_routine
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.test_context import sqlstate_of
from tests.conformance.test_mutations import RED
from tests.conformance.world import Member, World, bind

OPEN = date.max  # asyncpg's word for infinity


async def new_product(connection: asyncpg.Connection, sku: str = "A") -> UUID:
    product: UUID = await connection.fetchval(
        "INSERT INTO tb_product (sku, name, price) VALUES ($1, 'Lamp', 1) RETURNING id", sku
    )
    return product


class Prices:
    """The two calls for one product, in one transaction of a tenant."""

    def __init__(self, connection: asyncpg.Connection, member: Member, product: UUID) -> None:
        self.connection = connection
        self.member = member
        self.product = product

    async def set(self, price: object, valid_from: str, valid_to: str | None = None, currency: str = "EUR") -> Any:
        given = {"product_id": self.product, "currency": currency, "price": price, "valid_from": valid_from}
        if valid_to is not None:
            given["valid_to"] = valid_to
        return await call(self.connection, self.member, "set_price", given)

    async def at(self, day: str, currency: str = "EUR", as_of: datetime | None = None) -> float | None:
        given = {"product_id": self.product, "currency": currency, "day": day, "as_of": as_of}
        answer = await call(self.connection, self.member, "price_at", given)
        assert answer["success"], answer
        assert answer["code"] == ("no_price" if answer["data"]["price"] is None else "found")
        assert answer["data"]["currency"] == currency
        price: float | None = answer["data"]["price"]
        return price

    async def count(self, *, current: bool = False) -> int:
        where = " AND known_to = 'infinity'" if current else ""
        found: int = await self.connection.fetchval(
            f"SELECT count(*) FROM tb_price WHERE product_id = $1{where}", self.product
        )
        return found


@asynccontextmanager
async def pricing(world: World, member: Member | None = None) -> AsyncIterator[Prices]:
    """A new product, and everything undone afterwards."""
    member = member or world.a
    async with world.request(member) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await bind(connection, member)
        yield Prices(connection, member, await new_product(connection))
        await transaction.rollback()


@asynccontextmanager
async def as_owner(world: World) -> AsyncIterator[Prices]:
    """The same as cp_owner, which no policy and no grant holds back."""
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT set_config('app.current_tenant_id', $1, true)", str(world.a.id))
        product = await new_product(connection)
        await connection.execute("INSERT INTO tb_currency (code, decimals) VALUES ('EUR', 2), ('USD', 2)")
        yield Prices(connection, world.a, product)
        await transaction.rollback()


async def the_example(prices: Prices) -> datetime:
    """Acceptance 11.1; answers the time after which the past is corrected."""
    for price, valid_from in ((10, "2024-01-01"), (12, "2024-07-01"), (20, "2099-01-01")):
        assert (await prices.set(price, valid_from))["success"]
    noted: datetime = await prices.connection.fetchval("SELECT clock_timestamp()")
    assert (await prices.set(9, "2024-02-01", "2024-03-01"))["success"]
    assert (await prices.set(13, "2025-01-01"))["success"]
    assert (await prices.set(11, "2024-01-01", currency="USD"))["success"]
    return noted


# acceptance 11.1
async def test_prices_are_scheduled_and_corrected_without_loss(world: World) -> None:
    """Requirement 2: only what a change overlaps is closed, and what it leaves of that is still known."""
    async with pricing(world) as prices:
        await the_example(prices)
        expected = {
            "2023-12-31": None,
            "2024-01-31": 10,
            "2024-02-01": 9,
            "2024-02-29": 9,
            "2024-03-01": 10,
            "2024-06-30": 10,
            "2024-07-01": 12,
            "2024-12-31": 12,
            "2025-01-01": 13,
            "2098-12-31": 13,
            "2099-01-01": 20,
        }
        assert {day: await prices.at(day) for day in expected} == expected
        assert await prices.at("2024-02-15", "USD") == 11
        assert await prices.at("2024-02-15", "CHF") is None


# acceptance 11.2
async def test_what_was_known_before_is_still_answered(world: World) -> None:
    async with pricing(world) as prices:
        noted = await the_example(prices)
        assert await prices.at("2024-02-15", as_of=noted) == 10
        assert await prices.at("2025-06-01", as_of=noted) == 12
        assert await prices.at("2024-02-15", "USD", as_of=noted) is None
        assert await prices.at("2024-02-15", as_of=noted - timedelta(days=1)) is None
        assert await prices.count(current=True) == 7
        assert await prices.count() == 11
        listed = await prices.connection.fetchval(
            f'SELECT count(*) FROM "{world.a.schema}__api_v2".prices WHERE product_id = $1', prices.product
        )
        assert listed == 7  # the resource shows what is known now


async def test_a_price_lasts_to_the_next_scheduled_one_or_to_the_end(world: World) -> None:
    """Requirement 2: `valid_to` omitted, given, and infinity."""
    async with pricing(world) as prices:
        await prices.set(10, "2024-01-01")
        await prices.set(20, "2024-06-01")
        created = await prices.set(15, "2024-03-01")
        document = created["data"]["price"]
        assert (document["valid_from"], document["valid_to"]) == ("2024-03-01", "2024-06-01")
        assert (document["__typename"], document["price"], document["currency"]) == ("Price", 15, "EUR")
        assert await prices.at("2024-07-01") == 20
        created = await prices.set(30, "2024-04-01", "infinity")
        assert created["data"]["price"]["valid_to"] is None
        assert [await prices.at(f"2024-{month}-01") for month in ("02", "03", "04", "07")] == [10, 15, 30, 30]
        # A price at the very day of another takes its place, to the end that that one had.
        await prices.set(16, "2024-03-01")
        assert [await prices.at(f"2024-{month}-01") for month in ("02", "03", "04")] == [10, 16, 30]


async def test_any_history_answers_as_a_calendar_would(shared_world: World) -> None:
    """Requirement 2, by a model that keeps a price per day: random changes, all days, each as of each change."""
    chance = random.Random(11)
    start = date(2024, 1, 1)
    span = 40

    def day(n: int) -> str:
        return (start + timedelta(days=n)).isoformat()

    for _ in range(4):
        calendar: list[int | None] = [None] * span
        starts: set[int] = set()
        known: list[tuple[datetime, list[int | None]]] = []
        async with pricing(shared_world) as prices:
            for change in range(12):
                first = chance.randrange(span - 1)
                end = chance.choice([None, "infinity", chance.randrange(first + 1, span)])
                if isinstance(end, int):
                    await prices.set(change, day(first), day(end))
                    stop = end
                else:
                    await prices.set(change, day(first), end)
                    stop = min((s for s in starts if s > first), default=span) if end is None else span
                before = calendar[stop] if stop < span else None
                calendar[first:stop] = [change] * (stop - first)
                starts = {s for s in starts if not first < s < stop} | {first}
                if stop < span and before is not None:
                    starts.add(stop)
                known.append((await prices.connection.fetchval("SELECT clock_timestamp()"), list(calendar)))
            for moment, expected in known:
                rows = await prices.connection.fetch(
                    """
                    SELECT f.price FROM generate_series(0, $2) AS n
                    LEFT JOIN LATERAL fn_find_price($1, 'EUR', $3::date + n, $4) AS f ON true
                    ORDER BY n
                    """,
                    prices.product,
                    span - 1,
                    start,
                    moment,
                )
                assert [row["price"] for row in rows] == expected


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


# acceptance 11.4
@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("price", {"price": -5}),
        ("price", {"price": "1.239"}),
        ("price", {"price": 1.239}),
        ("price", {"price": "0.5", "currency": "JPY"}),
        ("price", {"price": "1.0001", "currency": "KWD"}),
        ("price", {"price": "NaN"}),
        ("price", {"price": None}),
        ("currency", {"currency": "zzz"}),
        ("currency", {"currency": "ZZZ"}),
        ("currency", {"currency": None}),
        ("valid_from", {"valid_from": None}),
        ("valid_from", {"valid_from": "2024-02-30"}),
        ("valid_from", {"valid_from": "infinity"}),
        ("valid_to", {"valid_to": "2024-02-30"}),
        ("valid_to", {"valid_to": "2024-01-01"}),
        ("valid_to", {"valid_to": "2023-01-01"}),
        ("valid_to", {"valid_to": "-infinity"}),
        ("known_from", {"known_from": "2024-01-01T00:00:00Z"}),
    ],
)
async def test_what_cannot_be_is_refused_and_never_rounded(
    shared_world: World, path: str, given: dict[str, object]
) -> None:
    """Requirement 6."""
    async with pricing(shared_world) as prices:
        valid = {"product_id": prices.product, "currency": "EUR", "price": "1.23", "valid_from": "2024-01-01"}
        result = await call(prices.connection, prices.member, "set_price", valid | given)
        assert (result["success"], result["code"]) == (False, "invalid")
        assert [problem["path"] for problem in result["errors"]] == [path]
        assert await prices.count() == 0


async def test_decimals_are_those_of_the_currency(shared_world: World) -> None:
    """Requirement 6."""
    async with pricing(shared_world) as prices:
        for currency, price in (("JPY", "150"), ("KWD", "1.234"), ("EUR", "1.20"), ("CHF", "0"), ("EUR", "1.2300")):
            result = await prices.set(price, "2024-01-01", currency=currency)
            assert result["success"], result
            assert result["data"]["price"]["price"] == float(price)
        shown = await prices.connection.fetchval("SELECT data ->> 'price' FROM v_price WHERE currency = 'KWD'")
        assert shown == "1.234"
        found = await prices.connection.fetch("SELECT code, decimals FROM tb_currency ORDER BY code")
        assert {row["code"]: row["decimals"] for row in found} == {"CHF": 2, "EUR": 2, "JPY": 0, "KWD": 3}


async def test_a_product_that_is_not_there_has_no_prices(world: World) -> None:
    async with pricing(world) as prices:
        await prices.set(10, "2024-01-01")
        for product in (uuid4(), prices.product):
            if product == prices.product:
                await prices.connection.execute("UPDATE tb_product SET deleted_at = now() WHERE id = $1", product)
            given = {"product_id": product, "currency": "EUR", "price": 1, "valid_from": "2024-01-01"}
            assert (await call(prices.connection, world.a, "set_price", given))["code"] == "not_found"
        given = {"product_id": uuid4(), "currency": "EUR", "day": "2024-01-01"}
        assert (await call(prices.connection, world.a, "price_at", given))["code"] == "not_found"
        assert await prices.at("2024-01-01") == 10  # history outlives the product


# requirement 4
async def test_which_day_it_is_hangs_on_the_place_and_not_on_the_session(shared_world: World) -> None:
    async with pricing(shared_world) as prices:
        # 26 hours lie between these two: at no instant do they have the same day.
        early = await prices.connection.fetchval("SELECT (now() AT TIME ZONE 'Etc/GMT+12')::date")
        late = await prices.connection.fetchval("SELECT (now() AT TIME ZONE 'Pacific/Kiritimati')::date")
        assert early < late
        await prices.set(1, early.isoformat())
        await prices.set(2, late.isoformat())
        for session_zone in ("UTC", "Pacific/Kiritimati", "Etc/GMT+12"):
            await prices.connection.execute(f"SET LOCAL timezone = '{session_zone}'")
            for zone, expected in (("Etc/GMT+12", 1), ("Pacific/Kiritimati", 2)):
                given = {"product_id": prices.product, "currency": "EUR", "time_zone": zone}
                answer = await call(prices.connection, prices.member, "price_at", given)
                assert answer["data"]["price"] == expected
            assert await prices.at(early.isoformat()) == 1
        for wrong in ({}, {"day": "2024-01-01", "time_zone": "UTC"}, {"time_zone": "Mars/Phobos"}, {"day": "today"}):
            given = {"product_id": prices.product, "currency": "EUR", **wrong}
            answer = await call(prices.connection, prices.member, "price_at", given)
            assert (answer["success"], answer["code"]) == (False, "invalid"), wrong


async def test_reading_a_price_writes_nothing(world: World) -> None:
    async with world.within(world.a, read_only=True) as connection:
        given = {"product_id": uuid4(), "currency": "EUR", "time_zone": "Europe/Paris"}
        assert (await call(connection, world.a, "price_at", given))["code"] == "not_found"


# requirement 5
async def test_history_is_only_appended_to(world: World) -> None:
    async with pricing(world) as prices:
        await the_example(prices)
        for statement in (
            "UPDATE tb_price SET price = 0",
            "UPDATE tb_price SET known_to = now()",
            "DELETE FROM tb_price",
            "TRUNCATE tb_price",
            "INSERT INTO tb_currency (code, decimals) VALUES ('PTS', 0)",
            "UPDATE tb_currency SET decimals = 5",
        ):
            assert await sqlstate_of(prices.connection, statement) == "42501", statement


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


async def test_tenants_do_not_meet(shared_world: World) -> None:
    async with pricing(shared_world, shared_world.b) as prices:
        await prices.set(5, "2024-01-01")
        await prices.connection.execute("SELECT set_config('app.current_tenant_id', $1, true)", str(shared_world.a.id))
        assert await prices.count() == 0
        assert (await prices.set(6, "2024-01-01"))["code"] == "not_found"


# What follows commits, and history cannot be deleted: it has a world of its own.


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busy(ground: Ground) -> World:
    return await ground.world("shared")


async def product_of(world: World) -> UUID:
    async with world.within(world.a) as connection:
        # The first price in a currency brings the currency, and that alone would make others wait.
        await Prices(connection, world.a, await new_product(connection, f"S-{uuid4()}")).set(1, "2024-01-01")
        return await new_product(connection, f"S-{uuid4()}")


async def an_overlapping_call_waits_and_then_wins(world: World) -> None:
    """The first call has set its price and not committed yet when the second one starts."""
    product = await product_of(world)
    async with world.within(world.a) as first:
        assert (await Prices(first, world.a, product).set(1, "2024-01-01"))["success"]

        async def second() -> Any:
            async with world.within(world.a) as connection:
                return await Prices(connection, world.a, product).set(2, "2024-01-01")

        waiting = asyncio.create_task(second())
        async with world.admin(world.a) as admin:
            while not await admin.fetchval(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid IN "
                "(SELECT pid FROM pg_stat_activity WHERE datname = current_database()))"
            ):
                assert not waiting.done(), waiting.result()
                await asyncio.sleep(0)
    assert (await waiting)["success"]
    async with world.within(world.a) as connection:
        assert await Prices(connection, world.a, product).at("2024-06-01") == 2


async def many_calls_at_once_all_succeed(world: World) -> None:
    product = await product_of(world)
    chance = random.Random(3)

    async def caller(number: int) -> None:
        for n in range(10):
            async with world.within(world.a) as connection:
                prices = Prices(connection, world.a, product)
                result = await prices.set(number * 100 + n, f"2024-{chance.randint(1, 12):02}-01")
                assert result["success"], result

    await asyncio.gather(*(caller(number) for number in range(6)))
    async with world.within(world.a) as connection:
        facts = await connection.fetchrow(
            """
            SELECT count(DISTINCT known_from) AS changes, bool_and(known_from < known_to) AS ordered,
                   bool_and(known_to = 'infinity') FILTER (WHERE known_from = latest) AS last_is_current
            FROM (SELECT *, max(known_from) OVER () AS latest FROM tb_price WHERE product_id = $1) AS p
            """,
            product,
        )
    assert facts is not None
    assert tuple(facts) == (60, True, True)  # each call has a time of its own


# requirement 3
async def test_concurrent_changes_all_succeed_and_the_last_one_wins(busy: World) -> None:
    await an_overlapping_call_waits_and_then_wins(busy)
    await many_calls_at_once_all_succeed(busy)


async def test_a_transaction_that_began_earlier_does_not_invert_time(busy: World) -> None:
    """Requirement 3: the time of a change is taken when it is made, not when its transaction began."""
    product = await product_of(busy)
    async with busy.within(busy.a) as early:
        await early.fetchval("SELECT now()")
        async with busy.within(busy.a) as late:
            assert (await Prices(late, busy.a, product).set(1, "2024-01-01"))["success"]
        assert (await Prices(early, busy.a, product).set(2, "2024-01-01"))["success"]
        assert await Prices(early, busy.a, product).at("2024-01-01") == 2
        assert await early.fetchval(
            "SELECT bool_and(known_from < known_to) FROM tb_price WHERE product_id = $1", product
        )


async def test_time_goes_on_when_the_clock_goes_back(shared_world: World) -> None:
    """Requirement 3: a change is at least a microsecond later than the last, whatever the clock says."""
    async with as_owner(shared_world) as prices:
        ahead = datetime(2999, 1, 1, tzinfo=UTC)
        await prices.connection.execute(
            "INSERT INTO tb_price (product_id, currency, decimals, price, valid_from, known_from) "
            "VALUES ($1, 'EUR', 2, 10, '2024-01-01', $2)",
            prices.product,
            ahead,
        )
        await prices.connection.execute(f'SET LOCAL ROLE "{shared_world.a.home.role_name}"')
        for change in (1, 2):
            result = await prices.set(change, "2024-01-01")
            assert result["success"], result
            known_from = datetime.fromisoformat(result["data"]["price"]["known_from"])
            assert known_from == ahead + timedelta(microseconds=change)


async def test_without_the_lock_on_the_product_changes_collide(ground: Ground) -> None:
    """Requirement 3, the guard taken out."""
    world = await ground.world("shared")
    await replace_in_routine(world, "fn_set_price(jsonb)", "FOR NO KEY UPDATE", "")
    with pytest.raises(RED):
        await an_overlapping_call_waits_and_then_wins(world)


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
