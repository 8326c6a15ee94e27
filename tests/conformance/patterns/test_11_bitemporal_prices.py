"""Pattern 11: prices with the days on which they are valid and the time during which they were taken to be."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from uuid import uuid4

import pytest

from tests.conformance.patterns.calls import call
from tests.conformance.patterns.prices import Prices, pricing
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World


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


async def test_tenants_do_not_meet(shared_world: World) -> None:
    async with pricing(shared_world, shared_world.b) as prices:
        await prices.set(5, "2024-01-01")
        await prices.connection.execute("SELECT set_config('app.current_tenant_id', $1, true)", str(shared_world.a.id))
        assert await prices.count() == 0
        assert (await prices.set(6, "2024-01-01"))["code"] == "not_found"
