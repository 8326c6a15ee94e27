"""Prices of a product, set and asked for in transactions that are undone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from tests.conformance.patterns.calls import call
from tests.conformance.world import Member, World, bind


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
