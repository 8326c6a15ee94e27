"""One statement of concurrent.sql, or one batch of backfill.sql, in one home."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING

import asyncpg

from control_plane.pools.connect import BROKEN
from control_plane.settings import shipped
from control_plane.templates.script import quote

if TYPE_CHECKING:
    from control_plane.templates.lint.apart import Apart

_PROGRESS = (shipped("sql") / "migrator" / "apart.sql").read_text("utf-8")


async def perform(connection: asyncpg.Connection, schema: str, statement: Apart) -> None:
    """Do what an earlier attempt has not done yet; outside of a transaction, with the home's path.

    Raises what the server says; an index that could not be built does not stay.
    """
    await connection.execute("SET ROLE cp_owner")
    if statement.kind == "other":
        await connection.execute(statement.sql)
    else:
        await _finish(connection, schema, statement)
    await connection.execute("RESET ROLE")


async def fill(connection: asyncpg.Connection, sql: str) -> int:
    """The rows that one batch changed, 0 when nothing is left; within a transaction, with the home's path.

    What a function returns counts as rows if it is a number, as one row if it is true.
    """
    await connection.execute("SET LOCAL ROLE cp_owner")
    prepared = await connection.prepare(sql)
    answers = await prepared.fetch()
    # What is deferred would run at the commit as another role.
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED; SET LOCAL ROLE NONE")
    command, *_, count = (prepared.get_statusmsg() or "").split()
    if command != "SELECT":
        return int(count)
    answer = answers[0][0] if answers else None
    return int(answer) if isinstance(answer, (int, Decimal)) else int(bool(answer))


async def _finish(connection: asyncpg.Connection, schema: str, statement: Apart) -> None:
    found = await _look(connection, schema, statement)
    await _drop(connection, found["left"])
    if found["done"]:
        return
    sql = statement.sql
    if statement.kind == "detach" and found["pending"]:
        sql = f"ALTER TABLE {quote(statement.name)} DETACH PARTITION {quote(statement.detail)} FINALIZE"
    try:
        await connection.execute(sql)
    except asyncpg.PostgresError:
        with suppress(*BROKEN):  # the next attempt looks again
            await _drop(connection, (await _look(connection, schema, statement))["left"])
        raise
    if (await _look(connection, schema, statement))["done"] is False:
        raise asyncpg.ObjectNotInPrerequisiteStateError(f"{statement.name} is not as the statement leaves it")


async def _look(connection: asyncpg.Connection, schema: str, statement: Apart) -> asyncpg.Record:
    name = f"{quote(schema)}.{quote(statement.name)}"
    beside = statement.detail or None
    if beside is not None and statement.kind != "label":
        beside = f"{quote(schema)}.{quote(beside)}"
    row = await connection.fetchrow(_PROGRESS, statement.kind, name, beside)
    assert row is not None
    return row


async def _drop(connection: asyncpg.Connection, indexes: str) -> None:
    names: Sequence[str] = json.loads(indexes)
    for name in names:
        await connection.execute(f"DROP INDEX CONCURRENTLY {name}")
