"""A shop of the reference application: requests that are undone, and what its tests read and write."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

from tests.conformance.world import World

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
