"""Cached queries as tests use them, with a query of their own that counts how often it is computed."""

from __future__ import annotations

import json
from typing import Any

import asyncpg

from tests.conformance.conftest import Ground
from tests.conformance.patterns.posts import new_author
from tests.conformance.world import Member, World

Answer = dict[str, Any]  # {result, cache: {status, age, computed_at}}

# Every call draws a number, which no rollback gives back. `mode` says what the call does besides; a lock that the test
# holds keeps it from ending.
_COUNTED = """
    CREATE SEQUENCE computations;
    CREATE FUNCTION fn_counted(parameters jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path FROM CURRENT
    AS $$
    BEGIN
        PERFORM nextval('computations');
        CASE parameters ->> 'mode'
            WHEN 'wait' THEN PERFORM pg_advisory_xact_lock_shared(2121);
            WHEN 'fail' THEN RAISE EXCEPTION 'failed' USING ERRCODE = 'TS001';
            WHEN 'empty' THEN RETURN '[]';
            WHEN 'null' THEN RETURN NULL;
            WHEN 'viewer' THEN RETURN jsonb_build_object('user', tenancy.current_user_id(),
                                                         'roles', to_jsonb(tenancy.current_roles()));
            WHEN 'large' THEN RETURN to_jsonb(repeat('x', 10000));
            WHEN 'zone' THEN RETURN jsonb_build_array(timestamptz '2026-03-01T00:00:00Z');
            ELSE NULL;
        END CASE;
        RETURN (SELECT count(*) FROM tv_post_stats
                WHERE tenant_id = tenancy.current_tenant_id() AND data IS NOT NULL);
    END
    $$;
    REVOKE ALL ON FUNCTION fn_counted(jsonb) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION fn_counted(jsonb) TO cp_definer;
    GRANT USAGE ON SEQUENCE computations TO cp_definer;
"""
ENTRY: dict[str, Any] = {
    "function": "fn_counted",
    "parameters": {
        "mode": {"type": "string"},
        "id": {"type": "uuid"},
        "count": {"type": "integer"},
        "price": {"type": "decimal"},
        "day": {"type": "date"},
        "at": {"type": "timestamp"},
    },
    "sources": ["tv_post_stats"],
    "per_user": False,
    "roles": [],
    "ttl": 300,
    "max_bytes": 5000,
}


async def catalogue(world: World, member: Member, /, **changes: object) -> None:
    """Put the query `counted` into the catalogue of the member's home, or change its entry; null removes a key."""
    entry = {key: value for key, value in {**ENTRY, **changes}.items() if value is not None}
    async with world.admin(member) as connection:
        await connection.execute(
            "UPDATE tenancy.manifests SET manifest = jsonb_set(manifest, '{cached_queries,counted}', $1::jsonb)",
            json.dumps(entry),
        )


async def add_counted(world: World) -> None:
    """Both homes get the query `counted`."""
    for member in (world.a, world.b):
        async with world.owner(member) as connection:
            if await connection.fetchval("SELECT to_regproc('fn_counted') IS NULL"):
                await connection.execute(_COUNTED)
        await catalogue(world, member)


async def computations(world: World, member: Member) -> int:
    """How often `counted` was computed in the member's home so far."""
    async with world.owner(member) as connection:
        found = await connection.fetchval("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM computations")
    return int(found)


async def ask(
    connection: asyncpg.Connection, member: Member, name: str = "counted", /, *, bypass: object = False, **given: object
) -> Answer:
    """A query of the catalogue with parameters, through API version 2."""
    document = json.dumps({"name": name, "parameters": given, "bypass": bypass}, default=str)
    result = json.loads(await connection.fetchval(f'SELECT "{member.schema}__api_v2".read_query($1)', document))
    assert result["success"], result
    return dict(result["data"])


async def status(connection: asyncpg.Connection, member: Member, name: str = "counted", /, **given: object) -> str:
    return str((await ask(connection, member, name, **given))["cache"]["status"])


async def stored_answers(world: World, member: Member) -> list[asyncpg.Record]:
    async with world.owner(member) as connection:
        found: list[asyncpg.Record] = await connection.fetch(
            "SELECT * FROM tb_cached_result WHERE tenant_id = $1 ORDER BY expires_at", member.id
        )
    return found


async def expire(world: World, member: Member, ago: str = "1 s") -> None:
    """Let all answers of the member be as if they had expired some time ago."""
    async with world.owner(member) as connection:
        await connection.execute(
            """
            UPDATE tb_cached_result
            SET computed_at = computed_at - (expires_at - now()) - $2::text::interval,
                expires_at = now() - $2::text::interval
            WHERE tenant_id = $1
            """,
            member.id,
            ago,
        )


async def counting_world(ground: Ground, mode: str) -> World:
    """Two tenants with the query `counted`, and Ada in each of them; tests may commit into it."""
    world = await ground.world(mode)
    await add_counted(world)
    for member in (world.a, world.b):
        await new_author(world, member)
    return world


async def forget(world: World) -> World:
    """The same world with an empty cache and the catalogue as it was."""
    for member in (world.a, world.b):
        async with world.owner(member) as connection:
            await connection.execute("DELETE FROM tb_cached_result")
        await catalogue(world, member)
    return world
