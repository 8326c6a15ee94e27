"""One command at work on an adoption: its rows of the registry and the only connection to its database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import update

from control_plane.adoption.ddl import Ground
from control_plane.adoption.link import lock_adoption, open_legacy
from control_plane.adoption.mapping import Mapping
from control_plane.errors import AdoptionConflict, AdoptionNotFound
from control_plane.pools.databases import Databases
from control_plane.registry import adoptions
from control_plane.registry.models import AdoptedEntity, AdoptedTable, Adoption


@dataclass
class Work:
    """`tables` and `entities` are detached rows; `record` keeps them and the registry alike."""

    databases: Databases
    adoption: Adoption
    tables: list[AdoptedTable]
    entities: list[AdoptedEntity]
    connection: asyncpg.Connection

    @property
    def ground(self) -> Ground:
        return ground_of(self.adoption)

    def table(self, name: str) -> AdoptedTable:
        """By name, or by schema.name. Raises `AdoptionNotFound`."""
        for table in self.tables:
            if name in (table.table_name, f"{table.schema_name}.{table.table_name}"):
                return table
        raise AdoptionNotFound(f"The adoption has no table {name!r}.")

    def entity(self, name: str) -> AdoptedEntity:
        """Raises `AdoptionNotFound`."""
        for entity in self.entities:
            if entity.name == name:
                return entity
        raise AdoptionNotFound(
            f"There is no entity {name!r} in this adoption.", hint="Start with it: cp cutover start."
        )

    def entity_of(self, table: AdoptedTable) -> AdoptedEntity | None:
        place = (table.schema_name, table.table_name)
        return next((each for each in self.entities if (each.schema_name, each.table_name) == place), None)

    async def record(self, row: Adoption | AdoptedTable | AdoptedEntity, **values: Any) -> None:
        """Commit a step: what is recorded before work is intent, what is recorded after it is fact."""
        kind = type(row)
        key = {column.name: getattr(row, column.name) for column in kind.__table__.primary_key}
        async with self.databases.registry.begin() as session:
            change = update(kind).filter_by(**key).values(values).returning(kind.updated_at)
            values["updated_at"] = await session.scalar(change)
        for name, value in values.items():
            setattr(row, name, value)


@asynccontextmanager
async def open_work(databases: Databases, name: str, *, states: Iterable[str] = ("active",)) -> AsyncIterator[Work]:
    """Raises `AdoptionNotFound`, `AdoptionConflict` when another command is at work or in another state."""
    async with databases.registry() as session:
        adoption = await adoptions.by_name(session, name)
    dsn = databases.box.open(adoption.dsn)
    async with open_legacy(dsn, lock_timeout=databases.settings.lock_timeout) as connection:
        await lock_adoption(connection, adoption.id)
        async with databases.registry() as session:
            adoption = await adoptions.by_name(session, name)
            tables = list(await adoptions.tables(session, adoption.id))
            entities = list(await adoptions.entities(session, adoption.id))
        if adoption.state not in states:
            raise AdoptionConflict(f"The adoption is {adoption.state}.", hint=_HINTS.get(adoption.state))
        yield Work(databases, adoption, tables, entities, connection)


_HINTS = {
    "planned": "Apply the plan first: cp adopt apply.",
    "applying": "Let the plan be finished first: cp adopt apply.",
    "removing": "It is being removed: cp adopt uninstall goes on with that.",
}


def ground_of(adoption: Adoption) -> Ground:
    return Ground(adoption.schema_name, adoption.reader_role, adoption.writer_role, tuple(adoption.readers))


def mapping_of(table: AdoptedTable) -> Mapping:
    return Mapping.model_validate(table.mapping)
