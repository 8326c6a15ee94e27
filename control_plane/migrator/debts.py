"""Where homes stand: their version, and which of its steps they owe."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

import asyncpg

from control_plane.templates.script import STEPS

_NOBODY = "(SELECT NULL::uuid AS home_id, NULL::text AS step WHERE false)"
_STANDING = """
SELECT h.version, (SELECT string_agg(step, ',') FROM tenancy.open_steps WHERE home_id = h.id) AS owed
FROM tenancy.homes AS h
WHERE h.id = $1
"""


class Standing(NamedTuple):
    """The version of a home, and the steps of it that it owes, in their order."""

    version: int
    owed: tuple[str, ...]


async def standing(connection: asyncpg.Connection, home_id: UUID) -> Standing | None:
    """None when there is no such home in this database."""
    row = await connection.fetchrow(_STANDING, home_id)
    return Standing(row["version"], in_order(row["owed"])) if row is not None else None


def in_order(owed: str | None) -> tuple[str, ...]:
    """The steps in a list with commas."""
    found = (owed or "").split(",")
    return tuple(step for step in STEPS if step in found)


async def fetch(connection: asyncpg.Connection, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """The rows of a query, also where `tenancy` is still to be brought up: in such a database nobody owes steps."""
    try:
        return await connection.fetch(sql, *arguments)
    except asyncpg.UndefinedTableError:
        return await connection.fetch(sql.replace("tenancy.open_steps", _NOBODY), *arguments)
