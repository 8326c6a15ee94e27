"""Which file of the template a home could not take, and what stands in its way, for whoever reads the result."""

from __future__ import annotations

import re
from dataclasses import dataclass

import asyncpg

from control_plane.migrator.plan import DueHome
from control_plane.templates import Script
from control_plane.templates.script import quote

_COLUMN = """
SELECT concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid))
FROM pg_attribute AS a
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass($1) AND a.attname = $2
"""
# The server puts names in these quotes in every language, the column first.
_CLASH = re.compile(r'"([^"]+)"[^"]+"([^"]+)"')


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a script fails: a file, and the definition that it has for a column that is there already."""

    label: str
    wanted: str | None = None


@dataclass(frozen=True, slots=True)
class _Column:
    table: str
    name: str

    async def definition(self, connection: asyncpg.Connection, home: DueHome) -> str | None:
        """Type, NOT NULL and default, as the home has it."""
        found: str | None = await connection.fetchval(_COLUMN, self._qualified(home), self.name)
        return found

    async def move_away(self, connection: asyncpg.Connection, home: DueHome) -> None:
        other = quote(f"{self.name[:50]} as found")
        await connection.execute(f"ALTER TABLE {self._qualified(home)} RENAME COLUMN {quote(self.name)} TO {other}")

    def _qualified(self, home: DueHome) -> str:
        return f"{quote(home.schema_name)}.{quote(self.table)}"


class Explainer:
    """Finds a failure's place once per kind of failure: a thousand homes with the same fault are one question."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, str | None, str], _Place | None] = {}

    async def explain(
        self,
        connection: asyncpg.Connection,
        script: Script,
        home: DueHome,
        lock_timeout: float,
        statement_timeout: float,
        error: asyncpg.PostgresError,
    ) -> str:
        """The server's message, with the place in the template where it can be told; the timeouts as it ran.

        Of a column that is there already it says what was found and what the template wants.
        """
        key = (script.from_version, error.sqlstate, str(error))
        if key not in self._places:
            self._places[key] = await _replay(connection, script, home, lock_timeout, statement_timeout, error)
        place = self._places[key]
        if place is None:
            return str(error)
        clash = _clash(error)
        if clash is None or place.wanted is None:
            return f"{error} ({place.label})"
        found = await clash.definition(connection, home)  # each home may have another one
        return f"{error}: found {found}, wanted {place.wanted} ({place.label})"


async def _replay(
    connection: asyncpg.Connection,
    script: Script,
    home: DueHome,
    lock_timeout: float,
    statement_timeout: float,
    error: asyncpg.PostgresError,
) -> _Place | None:
    """`file:line` from the position that parse errors carry; else run file by file, undo all, and name the file."""
    position = getattr(error, "position", None)
    if position:
        label = script.locate(int(position), home.home_id, home.schema_name, lock_timeout, statement_timeout)
        return _Place(label) if label else None
    transaction = connection.transaction()
    await transaction.start()
    try:
        for label, sql in script.sections(home.home_id, home.schema_name, lock_timeout, statement_timeout):
            try:
                async with connection.transaction():
                    await connection.execute(sql)
            except asyncpg.PostgresError as again:
                if again.sqlstate != error.sqlstate or label is None:
                    return None
                return _Place(label, await _wanted(connection, sql, home, again))
        return None
    finally:
        await transaction.rollback()


async def _wanted(connection: asyncpg.Connection, sql: str, home: DueHome, error: asyncpg.PostgresError) -> str | None:
    """What `sql` makes of the column that is in its way, once that and others like it are moved; None if it cannot."""
    first = clash = _clash(error)
    moved: set[_Column] = set()
    try:
        while clash is not None and clash not in moved:
            await clash.move_away(connection, home)
            moved.add(clash)
            try:
                async with connection.transaction():
                    await connection.execute(sql)
                    return await first.definition(connection, home) if first else None
            except asyncpg.DuplicateColumnError as again:
                clash = _clash(again)
    except asyncpg.PostgresError:
        return None
    return None


def _clash(error: asyncpg.PostgresError) -> _Column | None:
    """The column of "column … of relation … already exists"."""
    match = _CLASH.search(str(error)) if isinstance(error, asyncpg.DuplicateColumnError) else None
    return _Column(table=match[2], name=match[1]) if match else None
