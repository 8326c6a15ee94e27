"""What would come of adopting tables: their keys, columns and rows, and what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from control_plane.adoption.catalog import Column, Table, read_tables
from control_plane.adoption.keys import KeyCandidate, key_candidates
from control_plane.adoption.link import open_legacy
from control_plane.adoption.secrets import is_secret
from control_plane.errors import AdoptionNotFound
from control_plane.templates.script import quote

COUNTED = 1_000_000  # rows, up to which an estimate is replaced by the exact number
_COUNTED_BYTES = 64 * 2**20  # the same for tables that were never analysed
_SAMPLED_DOCUMENTS = 1000
_KINDS = {"v": "is a view", "m": "is a materialised view", "f": "is a foreign table"}
# What JSON shows of them depends on settings, or is not what an application wants to see.
_EXOTIC = {
    "money": "its text depends on lc_monetary; consider a numeric copy",
    "tsvector": "it is made from other columns and is large",
    "xml": "it becomes a string",
    "oid": "if it names a large object, the object does not come along",
    "json": "a value that jsonb cannot hold, such as \\u0000, stops the fill",
}


@dataclass(frozen=True)
class TableReport:
    """`problems` keep the table from being adopted, `notes` do not. `rows` is exact unless `rows_estimated`."""

    table: str
    rows: int
    rows_estimated: bool
    key: list[str] | None
    key_candidates: list[KeyCandidate]
    columns: dict[str, str]  # name to type
    secret_columns: list[str]
    missing_indexes: list[str]  # statements that would help; nobody runs them but the owner of the table
    problems: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Findings:
    """A table of the legacy database with what was found about it."""

    table: Table
    report: TableReport

    @property
    def best_key(self) -> KeyCandidate:
        return self.report.key_candidates[0]


async def inspect(dsn: str, schema: str, tables: Sequence[str] | None, *, exact: bool = False) -> list[TableReport]:
    """Only reads. `exact` counts every row. Raises `AdoptionNotFound` for tables that do not exist."""
    async with open_legacy(dsn) as connection:
        return [each.report for each in await examine(connection, schema, tables, exact=exact)]


async def examine(
    connection: asyncpg.Connection,
    schema: str,
    tables: Sequence[str] | None,
    *,
    exact: bool = False,
    keys: MappingOf[str, Sequence[str]] | None = None,
) -> list[Findings]:
    """`tables`: all of the schema when None. `keys`: chosen key columns by table."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found = await read_tables(connection, schema, tables)
        if missing := sorted(set(tables or ()) - {table.name for table in found}):
            raise AdoptionNotFound(f"There is no table {', '.join(missing)} in schema {schema}.")
        return [await _examine(connection, table, exact, (keys or {}).get(table.name)) for table in found]


async def _examine(connection: asyncpg.Connection, table: Table, exact: bool, key: Sequence[str] | None) -> Findings:
    problems = _problems(table)
    candidates: list[KeyCandidate] = []
    secret = [column.name for column in table.columns if is_secret(column.name)]
    rows, estimated = max(table.estimate, 0), True
    if table.readable and table.kind in ("r", "p"):
        candidates = await key_candidates(connection, table, key)
        if not candidates or not candidates[0].usable:
            problems.append(_no_key(candidates))
        secret += [name for name in await _telling_documents(connection, table) if name not in secret]
        if exact or _is_small(table):
            rows, estimated = await connection.fetchval(f"SELECT count(*) FROM {table.sql}"), False
    report = TableReport(
        table=f"{table.schema}.{table.name}",
        rows=rows,
        rows_estimated=estimated,
        key=candidates[0].columns if candidates and candidates[0].usable else None,
        key_candidates=candidates,
        columns={column.name: column.type for column in table.columns},
        secret_columns=secret,
        missing_indexes=[
            f"CREATE INDEX CONCURRENTLY ON {table.sql} ({', '.join(map(quote, each.columns))})"
            for each in table.unindexed_foreign_keys()
        ],
        problems=problems,
        notes=_notes(table),
    )
    return Findings(table, report)


def _is_small(table: Table) -> bool:
    return table.estimate <= COUNTED if table.estimate >= 0 else table.bytes <= _COUNTED_BYTES


def _problems(table: Table) -> list[str]:
    problems = []
    if table.kind in _KINDS:
        problems.append(f"it {_KINDS[table.kind]}; adopt the tables below it")
    if table.is_partition:
        problems.append("it is a partition; adopt the table that it belongs to")
    if table.persistence == "t":
        problems.append("it is temporary")
    if table.row_security:
        problems.append("it has row-level security, and a projection would show rows past its policies")
    if not table.readable:
        problems.append("the role of the connection string may not read it")
    if not table.grantable:
        problems.append(f"the role of the connection string cannot grant on it: it belongs to {table.owner}")
    if not table.columns:
        problems.append("it has no columns")
    return problems


def _no_key(candidates: Sequence[KeyCandidate]) -> str:
    if not candidates:
        return "no usable key: no primary key, no unique index, and no column that could be one"
    reasons = [f"{', '.join(each.columns)}: {each.reason}" for each in candidates]
    return "no usable key (" + " | ".join(reasons) + ")"


def _notes(table: Table) -> list[str]:
    notes = [f"{column.name} ({column.type}): {note}" for column in table.columns if (note := _exotic(column))]
    if len(table.columns) > 50:
        notes.append(f"{len(table.columns)} columns: the document is merged from several objects")
    if table.triggers:
        notes.append(f"triggers: {', '.join(table.triggers)}; they also fire for writes through generated functions")
    if table.has_children:
        notes.append("tables inherit from it; their rows are adopted as its rows")
    if table.persistence == "u":
        notes.append("it is unlogged: a crash of the server empties it, and the next sync its projection")
    return notes


def _exotic(column: Column) -> str | None:
    if column.base in _EXOTIC:
        return _EXOTIC[column.base]
    if column.kind in ("c", "r", "m"):
        return "times in it follow the time zone of whoever reads the view; the projection has UTC"
    if column.stored is None and column.kind == "b":
        return "a type of an extension; JSON shows its text"
    return None


async def _telling_documents(connection: asyncpg.Connection, table: Table) -> list[str]:
    """JSON columns that hold keys which look secret, in a sample of rows."""
    found = []
    for column in table.columns:
        if column.base not in ("json", "jsonb"):
            continue
        name, of = quote(column.name), column.base
        keys = await connection.fetch(
            f"SELECT DISTINCT k FROM (SELECT {name}::{of} AS d FROM {table.sql} LIMIT {_SAMPLED_DOCUMENTS}) AS s,"
            f" LATERAL {of}_object_keys(CASE {of}_typeof(d) WHEN 'object' THEN d ELSE '{{}}' END) AS k"
        )
        if any(is_secret(row["k"]) for row in keys):
            found.append(column.name)
    return found
