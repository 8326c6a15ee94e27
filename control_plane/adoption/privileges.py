"""What an ORM's role may write to a table: read, taken away, and given back as it was."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import asyncpg

from control_plane.adoption.catalog import Table, adoption_sql
from control_plane.errors import CutoverRefused
from control_plane.templates.script import quote

_PRIVILEGES = adoption_sql("privileges.sql")

Privilege = dict[str, Any]  # {"column": str | None, "privilege": str, "grantable": bool, "grantor": str}


async def read_privileges(connection: asyncpg.Connection, table: Table, role: str) -> list[Privilege]:
    found: list[Privilege] = await connection.fetchval(_PRIVILEGES, table.sql, quote(role))
    return found


async def revoke(connection: asyncpg.Connection, table: Table, role: str, given: list[Privilege]) -> None:
    """In a transaction. Waits for writers that are under way; whoever comes later is refused.

    Raises `CutoverRefused` when the role can write all the same, and says by which way.
    """
    await connection.execute(f"LOCK TABLE {table.sql} IN SHARE ROW EXCLUSIVE MODE")
    await _each_grantor(connection, table, given, lambda each: f"REVOKE {_what(table, each)} FROM {quote(role)}")
    left = await connection.fetchval(
        "SELECT string_agg(p, ', ') FROM unnest('{INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) AS p"
        " WHERE has_table_privilege($1, $2::oid, p)"
        " OR p IN ('INSERT', 'UPDATE') AND has_any_column_privilege($1, $2::oid, p)",
        role,
        table.oid,
    )
    if left:
        raise CutoverRefused(
            f"The role {role} could still {left} on {table.schema}.{table.name}: it is a superuser, or has it through "
            "another role or PUBLIC.",
            hint="Give it the privileges directly, and take them from the roles that it is a member of.",
        )


async def restore(connection: asyncpg.Connection, table: Table, role: str, given: list[Privilege]) -> None:
    """In a transaction; giving what is there already changes nothing."""

    def statement(each: Privilege) -> str:
        option = " WITH GRANT OPTION" if each["grantable"] and role != table.owner else ""
        return f"GRANT {_what(table, each)} TO {quote(role)}{option}"

    await _each_grantor(connection, table, given, statement)


async def _each_grantor(
    connection: asyncpg.Connection, table: Table, given: list[Privilege], statement: Callable[[Privilege], str]
) -> None:
    """A privilege is given and taken in the name of its grantor; an owner's name is ours to use."""
    by_grantor: dict[str, list[str]] = defaultdict(list)
    for each in given:
        by_grantor[each["grantor"]].append(statement(each))
    for grantor, statements in by_grantor.items():
        if grantor != table.owner:
            statements = [f"SET LOCAL ROLE {quote(grantor)}", *statements, "RESET ROLE"]
        await connection.execute("; ".join(statements))


def _what(table: Table, privilege: Privilege) -> str:
    column = f" ({quote(privilege['column'])})" if privilege["column"] else ""
    return f"{privilege['privilege']}{column} ON {table.sql}"
