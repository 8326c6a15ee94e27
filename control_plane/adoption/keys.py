"""Which columns tell the rows of a legacy table apart, and why others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from control_plane.adoption.catalog import Column, Table
from control_plane.templates.script import quote

SAMPLE = 5  # values that a refusal shows
_SEARCHED = 16  # columns without an index that are tried
_TYPES = {"int2", "int4", "int8", "uuid", "text", "varchar", "bpchar", "numeric"}


@dataclass(frozen=True)
class KeyCandidate:
    """`origin` is "primary key", "unique index" or "verified", which only the data says; `reason` is why not."""

    columns: list[str]
    origin: str
    usable: bool
    reason: str | None = None
    nulls: int = 0
    duplicates: list[dict[str, Any]] = field(default_factory=list)  # {"key": {…}, "rows": n}

    @property
    def enforced(self) -> bool:
        return self.origin != "verified"


async def key_candidates(
    connection: asyncpg.Connection, table: Table, chosen: Sequence[str] | None = None
) -> list[KeyCandidate]:
    """The best one first. The data is read only where no constraint answers; `chosen` restricts the search to a key."""
    candidates = [found for found in _enforced(table) if chosen is None or found.columns == list(chosen)]
    if any(candidate.usable for candidate in candidates):
        return sorted(candidates, key=lambda candidate: not candidate.usable)
    if chosen is None:
        tried: list[list[str]] = [[column.name] for column in _likely(table)]
        # The rows of children are rows of the table too, and no constraint of the parent keeps those apart.
        tried = [candidate.columns for candidate in candidates if table.has_children] + tried
    else:
        tried = [list(chosen)]
    verified = [await verify(connection, table, columns) for columns in tried]
    return sorted([*verified, *candidates], key=lambda candidate: not candidate.usable)


def _enforced(table: Table) -> list[KeyCandidate]:
    found = []
    for index in table.indexes:
        names = [name for name in index.columns if name is not None]
        if not index.unique or len(names) < len(index.columns):
            continue
        origin = "primary key" if index.primary else "unique index"
        reason = None
        if nullable := [name for name in names if not _column(table, name).not_null]:
            reason = f"{', '.join(nullable)} may be NULL"
        elif table.has_children:
            reason = "the rows of tables that inherit from this one do not fall under it"
        found.append(KeyCandidate(names, origin, reason is None, reason))
    return found


def _likely(table: Table) -> list[Column]:
    """Columns that look like keys, by type and then by name."""
    names = ("id", f"{table.name}_id", f"{table.name.removesuffix('s')}_id", "uuid", "guid", "key", "code")
    columns = [column for column in table.columns if column.base in _TYPES]

    def rank(column: Column) -> tuple[int, bool]:
        lower = column.name.lower()
        return (names.index(lower) if lower in names else len(names), not lower.endswith("id"))

    return sorted(columns, key=rank)[:_SEARCHED]


async def verify(connection: asyncpg.Connection, table: Table, columns: Sequence[str]) -> KeyCandidate:
    """Read the whole table: are the columns unique and never NULL?"""
    names = list(columns)
    for name in names:
        column = table.column(name)
        if column is None:
            return KeyCandidate(names, "verified", False, f"there is no column {name}")
        if not column.sortable:
            return KeyCandidate(names, "verified", False, f"values of type {column.type} have no order")
    listed = ", ".join(map(quote, names))
    rows, nulls = await connection.fetchrow(  # type: ignore[misc] # an aggregate has always one row
        f"SELECT count(*), count(*) FILTER (WHERE NOT ({listed}) IS NOT NULL) FROM {table.sql}"
    )
    fields = ", ".join(f"'{name.replace(chr(39), chr(39) * 2)}', {quote(name)}" for name in names)
    duplicates = [
        {"key": row["key"], "rows": row["rows"]}
        for row in await connection.fetch(
            f"SELECT jsonb_build_object({fields}) AS key, count(*) AS rows FROM {table.sql}"
            f" WHERE ({listed}) IS NOT NULL GROUP BY {listed} HAVING count(*) > 1 ORDER BY {listed} LIMIT {SAMPLE}"
        )
    ]
    reason = None
    if duplicates:
        reason = f"rows share a key: {_sample(duplicates)}"
    if nulls:
        reason = " and ".join([each for each in (reason, f"{nulls} rows have NULL") if each])
    elif reason is None and (nullable := [name for name in names if not _column(table, name).not_null]):
        reason = f"{', '.join(nullable)} may be NULL"
    elif reason is None and rows == 0:
        reason = "no index keeps it unique, and without rows nothing can be verified"
    return KeyCandidate(names, "verified", reason is None, reason, nulls, duplicates)


def _sample(duplicates: list[dict[str, Any]]) -> str:
    shown = [f"{', '.join(map(str, each['key'].values()))} ({each['rows']} rows)" for each in duplicates]
    return "; ".join(shown) + (" …" if len(duplicates) == SAMPLE else "")


def _column(table: Table, name: str) -> Column:
    column = table.column(name)
    assert column is not None
    return column
