"""Calls of the functions of API version 2 in a tenant's context, and how to take a guard out of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from tests.conformance.world import Member, World


async def call(connection: asyncpg.Connection, member: Member, function: str, given: Mapping[str, object]) -> Any:
    """The mutation result of a function; ids and times in `given` become text."""
    answer = await connection.fetchval(
        f'SELECT "{member.schema}__api_v2".{function}($1)', json.dumps(given, default=_as_text)
    )
    return json.loads(answer)


async def replace_in_routine(world: World, signature: str, old: str, new: str) -> None:
    """Change a function of the home of `world.a` as cp_owner, and hand it back to whom it belonged."""
    routine = f'"{world.a.schema}".{signature}'
    async with world.admin(world.a) as connection:
        definition = await connection.fetchval("SELECT pg_get_functiondef($1::text::regprocedure)", routine)
        owner = await connection.fetchval(
            "SELECT proowner::regrole::text FROM pg_proc WHERE oid = $1::text::regprocedure", routine
        )
        assert old in definition, f"{signature} no longer contains {old!r}: nothing would change"
        await connection.execute(
            f"""
            ALTER ROUTINE {routine} OWNER TO cp_owner;
            SET ROLE cp_owner;
            {definition.replace(old, new)};
            GRANT CREATE ON SCHEMA "{world.a.schema}" TO cp_definer;
            RESET ROLE;
            ALTER ROUTINE {routine} OWNER TO {owner};
            """
        )


def _as_text(value: object) -> str:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")
