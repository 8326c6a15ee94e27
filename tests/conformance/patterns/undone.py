"""A request whose changes are never kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from tests.conformance.world import Member, World


@asynccontextmanager
async def undone(
    world: World, member: Member, *, roles: Sequence[str] = (), read_only: bool = False
) -> AsyncIterator[asyncpg.Connection]:
    """A transaction in the member's context, as the request role, that is rolled back at the end."""
    async with world.request(member) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(
                "SELECT tenancy.set_tenant_context($1, $2, NULL, $3, $4)",
                member.id,
                member.user_id,
                read_only,
                list(roles),
            )
            yield connection
        finally:
            await transaction.rollback()
