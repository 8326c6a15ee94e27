"""Adoptions, their tables, and the entities that leave an ORM."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import AdoptionNotFound
from control_plane.registry.models import AdoptedEntity, AdoptedEntityMove, AdoptedTable, Adoption


async def find(session: AsyncSession, name: str) -> Adoption | None:
    return await session.scalar(select(Adoption).where(Adoption.name == name))


async def by_name(session: AsyncSession, name: str) -> Adoption:
    """Raises `AdoptionNotFound`."""
    if (adoption := await find(session, name)) is None:
        raise AdoptionNotFound(f"There is no adoption {name!r}.", hint="Make one: cp adopt plan.")
    return adoption


async def all_by_name(session: AsyncSession) -> Sequence[Adoption]:
    return (await session.scalars(select(Adoption).order_by(Adoption.name))).all()


async def tables(session: AsyncSession, adoption_id: UUID) -> Sequence[AdoptedTable]:
    query = select(AdoptedTable).where(AdoptedTable.adoption_id == adoption_id)
    return (await session.scalars(query.order_by(AdoptedTable.schema_name, AdoptedTable.table_name))).all()


async def table(session: AsyncSession, adoption_id: UUID, schema: str, name: str) -> AdoptedTable:
    return await session.get_one(AdoptedTable, (adoption_id, schema, name))


async def entities(session: AsyncSession, adoption_id: UUID) -> Sequence[AdoptedEntity]:
    query = select(AdoptedEntity).where(AdoptedEntity.adoption_id == adoption_id)
    return (await session.scalars(query.order_by(AdoptedEntity.name))).all()


async def entity(session: AsyncSession, adoption_id: UUID, name: str) -> AdoptedEntity:
    """Raises `AdoptionNotFound`."""
    query = select(AdoptedEntity).where(AdoptedEntity.adoption_id == adoption_id, AdoptedEntity.name == name)
    if (found := await session.scalar(query)) is None:
        raise AdoptionNotFound(
            f"There is no entity {name!r} in this adoption.", hint="Start with it: cp cutover start."
        )
    return found


async def moves(session: AsyncSession, entity_id: UUID) -> Sequence[AdoptedEntityMove]:
    """Oldest first."""
    query = select(AdoptedEntityMove).where(AdoptedEntityMove.entity_id == entity_id)
    return (await session.scalars(query.order_by(AdoptedEntityMove.id))).all()
