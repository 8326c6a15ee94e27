"""The id that this installation's role and database names carry."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.registry.models import Installation


async def installation_id(session: AsyncSession) -> UUID:
    return (await session.execute(select(Installation.id))).scalar_one()
