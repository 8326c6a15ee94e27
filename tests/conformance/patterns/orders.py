"""Orders as the tests of the event store and of its projection use them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from tests.conformance.patterns.calls import call
from tests.conformance.world import Member, World, bind

CREATED = {"type": "Created", "data": {"customer": "c1"}}
ITEM = {"type": "ItemAdded", "data": {"sku": "A", "qty": 2}}
NOTE = {"type": "NoteAdded", "data": {"note": "fragile"}}
SHIPPED = {"type": "Shipped", "data": {"shipped_on": "2024-05-01"}}
DELIVERED = {"type": "Delivered", "data": {}}
CANCELLED = {"type": "Cancelled", "data": {}}
WEIGHED = {"type": "Weighed", "data": {"grams": 12}, "opaque": True}

INSERT = (  # an event, as no function writes it
    "INSERT INTO tb_order_event (tenant_id, stream_id, version, type, data, arrival) VALUES ($1, $2, $3, $4, $5, 1)"
)


class Orders:
    """Calls about orders in one transaction of a tenant."""

    def __init__(self, connection: asyncpg.Connection, member: Member) -> None:
        self.connection = connection
        self.member = member

    async def call(self, function: str, **given: object) -> Any:
        return await call(self.connection, self.member, function, given)

    async def append(
        self, stream: UUID, expected: int | None, *events: Mapping[str, object], key: str | None = None
    ) -> Any:
        return await self.call(
            "append_order_events", stream_id=stream, expected_version=expected, events=events, idempotency_key=key
        )

    async def started(self, *events: Mapping[str, object]) -> UUID:
        """The id of a new order: Created and then `events`."""
        stream = uuid4()
        result = await self.append(stream, 0, CREATED, *events)
        assert result["success"], result
        return stream

    async def versions(self, stream: UUID) -> list[int]:
        rows = await self.connection.fetch(
            "SELECT version FROM tb_order_event WHERE stream_id = $1 ORDER BY version", stream
        )
        return [row["version"] for row in rows]

    async def projection(self, stream: UUID) -> Any:
        """The stored document, None when there is none."""
        row = await self.connection.fetchrow("SELECT data, version FROM tv_order WHERE id = $1", stream)
        if row is None:
            return None
        data = json.loads(row["data"])
        assert data["version"] == row["version"]
        return data

    async def folded(self, stream: UUID) -> Any:
        """What its events make of an order, from the first one on."""
        return json.loads(await self.connection.fetchval("SELECT fn_order_state($1)", stream))

    async def feed(self, after: str | None = None, limit: int = 1000) -> tuple[list[Any], str | None]:
        answer = await self.call("read_order_events", after=after, limit=limit)
        assert answer["success"], answer
        return answer["data"]["events"], answer["data"]["next"]


@asynccontextmanager
async def ordering(world: World, member: Member | None = None, *, roles: tuple[str, ...] = ()) -> AsyncIterator[Orders]:
    """A transaction that is undone afterwards."""
    member = member or world.a
    async with world.request(member) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await act_as(connection, member, *roles)
        yield Orders(connection, member)
        await transaction.rollback()


@asynccontextmanager
async def committing(world: World, member: Member | None = None) -> AsyncIterator[Orders]:
    """A transaction that commits: what it appends stays, so not in a world that others use."""
    member = member or world.a
    async with world.request(member) as connection, connection.transaction():
        await bind(connection, member)
        yield Orders(connection, member)


async def act_as(connection: asyncpg.Connection, member: Member, *roles: str) -> None:
    await connection.execute(
        "SELECT tenancy.set_tenant_context($1, $2, roles => $3)", member.id, member.user_id, list(roles)
    )


async def consumed(world: World, after: str | None, limit: int = 1000) -> tuple[list[tuple[UUID, int]], str | None]:
    """Streams and versions of a page of the feed, and the place after it."""
    async with world.within(world.a, read_only=True) as connection:
        events, place = await Orders(connection, world.a).feed(after, limit)
    return [(UUID(event["stream_id"]), event["version"]) for event in events], place
