"""Making one table's view and projection, and filling the latter. Every step may be taken again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from control_plane.adoption.catalog import read_tables
from control_plane.adoption.ddl import (
    Ground,
    entry_ddl,
    projection_ddl,
    reader_grants,
    select_grants,
    shape,
    view_ddl,
)
from control_plane.adoption.keys import KeyCandidate, verify
from control_plane.adoption.mapping import Mapping, build_mapping
from control_plane.adoption.secrets import is_secret
from control_plane.adoption.work import Work, mapping_of
from control_plane.adoption.writing import install_writers
from control_plane.errors import AdoptionConflict, AdoptionRefused
from control_plane.registry.models import AdoptedTable

CHUNK = 1000  # rows that a walk takes per transaction


@dataclass(frozen=True)
class Progress:
    """A walk through a table has come so far."""

    table: str
    rows: int
    finished: bool


Listener = Callable[[Progress], None]


@dataclass(frozen=True)
class Walked:
    """What one walk through a table has found and put right."""

    table: str
    rows: int
    inserted: int
    updated: int
    deleted: int


def table_ddl(ground: Ground, mapping: Mapping, *, keep_projection: bool = False) -> str:
    """The new view takes the old one's place; a projection stays where it has the right shape already."""
    statements = [f"DROP VIEW IF EXISTS {ground.qualified(mapping.view)};", view_ddl(ground, mapping)]
    if not keep_projection:
        statements += [f"DROP TABLE IF EXISTS {ground.qualified(mapping.projection)};", projection_ddl(ground, mapping)]
    statements += [entry_ddl(ground, mapping), *reader_grants(ground, mapping)]
    title = f"-- {mapping.label}"
    if mapping.withheld:
        title += f"; without {', '.join(mapping.withheld)}, which nobody confirmed"
    return "\n".join([title, select_grants(ground, mapping), ground.within(statements)])


async def build(work: Work, table: AdoptedTable) -> None:
    """Raises `AdoptionConflict` when the legacy table is not what the plan was made for."""
    mapping = mapping_of(table)
    await _require_unchanged(work.connection, table, mapping)
    await work.record(table, state="building")
    ground = work.ground
    async with work.connection.transaction():
        query = f"SELECT shape FROM {ground.qualified('adopted_tables')} WHERE name = $1"
        there = await work.connection.fetchval(query, mapping.label)
        keep = there == shape(ground, mapping)
        await work.connection.execute(table_ddl(ground, mapping, keep_projection=keep))
        if (entity := work.entity_of(table)) and entity.stage != "orm":
            await install_writers(work, entity)
    await work.record(table, state="filling", cursor=None, rows=0)


async def _require_unchanged(connection: asyncpg.Connection, table: AdoptedTable, mapping: Mapping) -> None:
    found = await read_tables(connection, table.schema_name, [table.table_name])
    if found:
        key = KeyCandidate(
            [each.column for each in mapping.key], "primary key" if mapping.enforced else "verified", usable=True
        )
        secret = {*mapping.withheld, *(each.name for each in found[0].columns if is_secret(each.name))}
        if build_mapping(found[0], key, secret, table.confirmed) == mapping:
            return
    raise AdoptionConflict(f"{mapping.label} has changed since it was planned.", hint="Plan again: cp adopt plan.")


async def fill(work: Work, table: AdoptedTable, chunk: int = CHUNK, listener: Listener | None = None) -> None:
    """Go on from the recorded cursor to the end of the table."""
    await walk(work, table, chunk, listener, fill=True)


async def walk(
    work: Work, table: AdoptedTable, chunk: int = CHUNK, listener: Listener | None = None, *, fill: bool = False
) -> Walked:
    """Make the projection equal to the table, `chunk` rows per transaction, in the order of the key.

    A fill records how far it has come, after each transaction: a crash costs the repetition of one of them.
    """
    label = mapping_of(table).label
    counts = dict.fromkeys(("rows", "inserted", "updated", "deleted"), 0)
    if fill:
        counts["rows"] = table.rows
    cursor = table.cursor if fill else None
    while True:
        found = await _sync_chunk(work, table, cursor, chunk)
        counts = {name: count + found[name] for name, count in counts.items()}
        cursor = found["last"]
        if listener is not None:
            listener(Progress(label, counts["rows"], finished=cursor is None))
        if cursor is None:
            break
        if fill:
            await work.record(table, cursor=cursor, rows=counts["rows"])
    values: dict[str, Any] = {"last_sync_at": datetime.now(UTC), "last_sync": counts}
    if fill:
        values |= {"state": "active", "cursor": None, "rows": counts["rows"]}
    await work.record(table, **values)
    return Walked(label, **counts)


async def _sync_chunk(work: Work, table: AdoptedTable, cursor: dict[str, Any] | None, chunk: int) -> dict[str, Any]:
    mapping = mapping_of(table)
    try:
        found: dict[str, Any] = await work.connection.fetchval(
            f"SELECT {work.ground.qualified('sync_chunk')}($1, $2, $3)", mapping.label, cursor, chunk
        )
    except asyncpg.CardinalityViolationError:
        # Nothing in the legacy database keeps this key unique, and now it is not any more.
        legacy = (await read_tables(work.connection, table.schema_name, [table.table_name]))[0]
        verified = await verify(work.connection, legacy, [each.column for each in mapping.key])
        raise AdoptionRefused(
            f"The key of {mapping.label} is not unique any more: {verified.reason}.",
            hint="Put the rows right in the legacy table, then sync again.",
        ) from None
    return found
