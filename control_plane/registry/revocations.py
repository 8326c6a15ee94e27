"""Revocations of tokens: who took back what, in the order in which they took effect."""

from __future__ import annotations

from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.registry.models import Revocation

# Readers go on after the greatest id that they have seen, so no smaller one may be committed later.
_IN_ORDER = text("SELECT pg_advisory_xact_lock(hashtextextended('control-plane.revocations', 0))")

# Clocks differ, and tokens are granted some leeway.
_MARGIN = text("interval '1 hour'")

# For a connection of asyncpg's own: $1 is the greatest id that was seen.
AFTER = """
    SELECT id, tenant_id, subject, token_id, extract(epoch FROM issued_before)::float8 AS issued_before
    FROM revocations WHERE id > $1 ORDER BY id
"""


async def add(session: AsyncSession, revocation: Revocation) -> None:
    """Others that add one wait until the transaction ends, so it should end soon."""
    await session.execute(_IN_ORDER)
    session.add(revocation)
    await session.flush()
    await session.refresh(revocation)


async def page(session: AsyncSession, *, before: int | None, limit: int) -> list[Revocation]:
    """The newest first, with ids smaller than `before`."""
    query = select(Revocation).order_by(Revocation.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Revocation.id < before)
    return list(await session.scalars(query))


async def delete_expired(session: AsyncSession) -> int:
    """How many rows went, of which every token has expired."""
    gone = await session.execute(
        delete(Revocation).where(Revocation.expires_at < func.now() - _MARGIN).returning(Revocation.id)
    )
    return len(gone.all())
