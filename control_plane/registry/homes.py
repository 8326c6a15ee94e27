"""Homes: where tenants' data lives."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import delete, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.registry.models import Home


async def shared(session: AsyncSession, cluster_id: UUID, template: str) -> Home | None:
    query = select(Home).where(Home.cluster_id == cluster_id, Home.template == template, Home.isolation == "shared")
    return (await session.scalars(query)).one_or_none()


async def add_shared(session: AsyncSession, home: Home) -> Home:
    """Insert the shared home, or return the one that somebody else inserted meanwhile: the unique index decides."""
    values = {
        "id": home.id,
        "cluster_id": home.cluster_id,
        "isolation": home.isolation,
        "template": home.template,
        "database": home.database,
        "schema_name": home.schema_name,
        "role_name": home.role_name,
        "password": home.password,
    }
    condition = text("isolation = 'shared'")
    await session.execute(
        insert(Home)
        .values(values)
        .on_conflict_do_nothing(index_elements=["cluster_id", "template"], index_where=condition)
    )
    found = await shared(session, home.cluster_id, home.template)
    assert found is not None
    return found


async def built(session: AsyncSession, home_id: UUID, version: int) -> None:
    """The home stands at `version`; a shared one may have been brought further by others meanwhile."""
    await session.execute(
        update(Home)
        .where(Home.id == home_id)
        .values(ready=True, pattern_version=version)
        .where((Home.pattern_version < version) | Home.ready.is_(False))
    )


async def remove(session: AsyncSession, home_id: UUID) -> None:
    await session.execute(delete(Home).where(Home.id == home_id))
