"""Which file of the template a home could not take, for the operator who reads the result."""

from __future__ import annotations

import asyncpg

from control_plane.migrator.plan import DueHome
from control_plane.templates import Script


class Explainer:
    """Finds a failure's place once per kind of failure: a thousand homes with the same fault are one question."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, str | None, str], str | None] = {}

    async def explain(
        self,
        connection: asyncpg.Connection,
        script: Script,
        home: DueHome,
        lock_timeout: float,
        error: asyncpg.PostgresError,
    ) -> str:
        """The server's message, with the place in the template where it can be told; `lock_timeout` as it ran."""
        key = (script.from_version, error.sqlstate, str(error))
        if key not in self._places:
            self._places[key] = await _replay(connection, script, home, lock_timeout, error)
        place = self._places[key]
        return f"{error} ({place})" if place else str(error)


async def _replay(
    connection: asyncpg.Connection, script: Script, home: DueHome, lock_timeout: float, error: asyncpg.PostgresError
) -> str | None:
    """`file:line` from the position that parse errors carry; else run file by file, undo all, and name the file."""
    position = getattr(error, "position", None)
    if position:
        return script.locate(int(position), home.home_id, home.schema_name, lock_timeout)
    transaction = connection.transaction()
    await transaction.start()
    try:
        for label, sql in script.sections(home.home_id, home.schema_name, lock_timeout):
            try:
                await connection.execute(sql)
            except asyncpg.PostgresError as again:
                return label if again.sqlstate == error.sqlstate else None
        return None
    finally:
        await transaction.rollback()
