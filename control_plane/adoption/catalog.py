"""What a legacy table consists of, as the catalogues of its database say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from control_plane.settings import shipped
from control_plane.templates.script import quote


def adoption_sql(name: str) -> str:
    return (shipped("sql") / "adoption" / name).read_text("utf-8")


_TABLES = adoption_sql("tables.sql")


@dataclass(frozen=True)
class Column:
    """`stored` is the type a projection can keep its values in, None = only their text."""

    name: str
    type: str
    base: str  # the name of the type below all domains
    kind: str  # pg_type.typtype of that
    category: str
    stored: str | None
    sortable: bool
    collation: str | None
    not_null: bool
    has_default: bool
    writable: bool


@dataclass(frozen=True)
class IndexFacts:
    """`unique` = keeps keys apart: valid, immediate, without predicate and expressions. None = an expression."""

    name: str
    primary: bool
    unique: bool
    partial: bool
    columns: list[str | None]


@dataclass(frozen=True)
class ForeignKey:
    name: str
    target: str
    columns: list[str]


@dataclass(frozen=True)
class Table:
    """`estimate` is the planner's row count, -1 = never analysed."""

    oid: int
    schema: str
    name: str
    kind: str
    persistence: str
    owner: str
    row_security: bool
    is_partition: bool
    has_children: bool
    estimate: int
    bytes: int
    readable: bool
    grantable: bool
    columns: list[Column]
    indexes: list[IndexFacts]
    foreign_keys: list[ForeignKey]
    triggers: list[str]

    @property
    def sql(self) -> str:
        return f"{quote(self.schema)}.{quote(self.name)}"

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)

    def unindexed_foreign_keys(self) -> list[ForeignKey]:
        """Those that a DELETE or a join on the other side has to search the whole table for."""
        whole = [index.columns for index in self.indexes if not index.partial]
        return [
            key
            for key in self.foreign_keys
            if not any(set(columns[: len(key.columns)]) == set(key.columns) for columns in whole)
        ]


async def read_tables(connection: asyncpg.Connection, schema: str, names: Sequence[str] | None = None) -> list[Table]:
    """The tables of a schema; those that do not exist are absent from the answer. Views are among them when named."""
    rows = await connection.fetch(_TABLES, schema, None if names is None else list(names))
    return [_table(schema, dict(row)) for row in rows]


def _table(schema: str, row: dict[str, Any]) -> Table:
    parts: dict[str, Any] = {
        "columns": [Column(**each) for each in row.pop("columns")],
        "indexes": [IndexFacts(**each) for each in row.pop("indexes")],
        "foreign_keys": [ForeignKey(**each) for each in row.pop("foreign_keys")],
    }
    return Table(schema=schema, **parts, **row)
