"""What an adoption looks like from outside: never its connection string."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control_plane.pools.databases import Databases
from control_plane.registry import adoptions
from control_plane.registry.models import AdoptedEntity, AdoptedTable, Adoption


@dataclass(frozen=True)
class TableRecord:
    """`rows`: that the last fill has gone through; `cursor`: where a fill that is under way stands."""

    table: str
    state: str
    view: str
    projection: str
    key: list[str]
    withheld: list[str]
    confirmed: list[str]
    rows: int
    cursor: dict[str, Any] | None
    last_sync_at: datetime | None
    last_sync: dict[str, Any] | None


@dataclass(frozen=True)
class EntityRecord:
    """`moving_to`: a move that was begun and not finished; repeat it, or go back."""

    entity: str
    table: str
    stage: str
    moving_to: str | None
    orm_role: str
    app_role: str
    updated_at: datetime


@dataclass(frozen=True)
class AdoptionRecord:
    name: str
    state: str
    schema: str
    reader_role: str
    readers: list[str]
    tables: list[TableRecord]
    entities: list[EntityRecord]
    created_at: datetime


async def get_adoption(databases: Databases, name: str) -> AdoptionRecord:
    """Raises `AdoptionNotFound`."""
    async with databases.registry() as session:
        adoption = await adoptions.by_name(session, name)
        tables = await adoptions.tables(session, adoption.id)
        entities = await adoptions.entities(session, adoption.id)
    return _record(adoption, list(tables), list(entities))


async def list_adoptions(databases: Databases) -> list[AdoptionRecord]:
    async with databases.registry() as session:
        return [
            _record(
                each,
                list(await adoptions.tables(session, each.id)),
                list(await adoptions.entities(session, each.id)),
            )
            for each in await adoptions.all_by_name(session)
        ]


def entity_record(entity: AdoptedEntity) -> EntityRecord:
    return EntityRecord(
        entity=entity.name,
        table=f"{entity.schema_name}.{entity.table_name}",
        stage=entity.stage,
        moving_to=entity.moving_to,
        orm_role=entity.orm_role,
        app_role=entity.app_role,
        updated_at=entity.updated_at,
    )


def _record(adoption: Adoption, tables: list[AdoptedTable], entities: list[AdoptedEntity]) -> AdoptionRecord:
    return AdoptionRecord(
        name=adoption.name,
        state=adoption.state,
        schema=adoption.schema_name,
        reader_role=adoption.reader_role,
        readers=adoption.readers,
        tables=[
            TableRecord(
                table=f"{row.schema_name}.{row.table_name}",
                state=row.state,
                view=row.mapping["view"],
                projection=row.mapping["projection"],
                key=[each["column"] for each in row.mapping["key"]],
                withheld=row.mapping["withheld"],
                confirmed=row.confirmed,
                rows=row.rows,
                cursor=row.cursor,
                last_sync_at=row.last_sync_at,
                last_sync=row.last_sync,
            )
            for row in tables
        ],
        entities=[entity_record(entity) for entity in entities],
        created_at=adoption.created_at,
    )
