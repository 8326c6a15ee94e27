"""Posts, comments and their projection as tests use them: calls in a tenant's context, undone or committed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import asyncpg

from tests.conformance.patterns.undone import undone as undone_request
from tests.conformance.world import Member, World, bind

Result = dict[str, Any]  # of a mutation

SYNC = "SELECT key, outcome FROM fn_sync_post_stats($1)"
DRIFT = "SELECT * FROM tenancy.projection_drift('tv_post_stats', 'v_post_stats')"
RESYNC = "SELECT * FROM tenancy.resync_projection('tv_post_stats', 'v_post_stats', 'tb_post')"


class Stored(NamedTuple):
    """A row of tv_post_stats; the text is what two syncs must agree on to the byte."""

    text: str | None
    version: int

    @property
    def data(self) -> dict[str, Any]:
        assert self.text is not None
        found: dict[str, Any] = json.loads(self.text)
        return found


@asynccontextmanager
async def undone(
    world: World, member: Member, user_id: UUID | None = None, roles: Sequence[str] = ()
) -> AsyncIterator[asyncpg.Connection]:
    """A transaction of a request that leaves nothing behind. Its user is Ada, one of the tenant's."""
    async with undone_request(world, member, roles=roles) as connection:
        if user_id is not None:
            await be(connection, member, user_id, roles)
        await add_user(connection, member.user_id, "Ada")
        yield connection


@asynccontextmanager
async def job(world: World, member: Member) -> AsyncIterator[asyncpg.Connection]:
    """A transaction of a job of the administrative role, which leaves nothing behind."""
    async with world.admin(member) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT tenancy.set_job_context($1)", member.id)
        await connection.execute(f'SET LOCAL search_path = "{member.schema}", extensions, pg_temp')
        yield connection
        await transaction.rollback()


async def be(connection: asyncpg.Connection, member: Member, user_id: UUID, roles: Sequence[str] = ()) -> None:
    """Become another user of the same tenant, within the same transaction."""
    await connection.execute("SELECT tenancy.set_tenant_context($1, $2, roles => $3)", member.id, user_id, list(roles))


async def add_user(connection: asyncpg.Connection, user_id: UUID | None = None, name: str = "Grace") -> UUID:
    added = user_id or uuid4()
    await connection.execute(
        "INSERT INTO tb_user (id, email, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        added,
        f"{added}@example.com",
        name,
    )
    return added


async def call(connection: asyncpg.Connection, member: Member, function: str, /, **fields: object) -> Result:
    """A function of API version 2, with `fields` as its input."""
    return await send(connection, member, function, json.dumps(fields, default=str))


async def send(connection: asyncpg.Connection, member: Member, function: str, document: str | None) -> Result:
    """As `call`, with the text of any JSON value."""
    answer = await connection.fetchval(f'SELECT * FROM "{member.schema}__api_v2"."{function}"($1)', document)
    result: Result = json.loads(answer)
    return result


async def write_post(connection: asyncpg.Connection, member: Member, title: str = "Post", **fields: object) -> UUID:
    result = await call(connection, member, "create_post", title=title, content="Content", **fields)
    assert result["success"], result
    return UUID(result["data"]["post"]["id"])


async def write_comment(connection: asyncpg.Connection, member: Member, post: UUID, content: str = "Comment") -> UUID:
    result = await call(connection, member, "create_comment", post_id=post, content=content)
    assert result["success"], result
    return UUID(result["data"]["comment"]["id"])


async def sync(connection: asyncpg.Connection, *keys: UUID | None) -> dict[UUID, str]:
    return {row["key"]: row["outcome"] for row in await connection.fetch(SYNC, list(keys))}


async def stored(connection: asyncpg.Connection, post: UUID) -> Stored | None:
    row = await connection.fetchrow("SELECT data::text, version FROM tv_post_stats WHERE id = $1", post)
    return Stored(row[0], row[1]) if row else None


async def existing(connection: asyncpg.Connection, post: UUID) -> Stored:
    found = await stored(connection, post)
    assert found is not None
    return found


async def signals(connection: asyncpg.Connection, post: UUID | None = None) -> int:
    """How many changes of a post, or of all, the feed tells of."""
    return int(await connection.fetchval("SELECT count(*) FROM tb_change WHERE key = $1 OR $1::uuid IS NULL", post))


async def drifted(connection: asyncpg.Connection) -> list[UUID]:
    """Which keys differ, as the jobs see it: the definition and the table are not for requests to compare."""
    row = await connection.fetchrow(DRIFT)
    assert row is not None
    return list(row["drifted"])


async def new_author(world: World, member: Member) -> None:
    """A committed user for those who write concurrently."""
    async with world.within(member) as connection:
        await add_user(connection, member.user_id, "Ada")


@asynccontextmanager
async def opened(world: World, member: Member, isolation: Any = None) -> AsyncIterator[asyncpg.Connection]:
    """A request's transaction that the test commits or undoes itself: BEGIN and the context are done."""
    async with world.request(member) as connection:
        await connection.execute(f"BEGIN ISOLATION LEVEL {isolation or 'READ COMMITTED'}")
        await bind(connection, member)
        yield connection


async def until_blocked(watcher: asyncpg.Connection, blocked: asyncpg.Connection) -> None:
    """Return when `blocked` waits for a lock of another session."""
    pid = blocked.get_server_pid()
    async with asyncio.timeout(20):
        while not await watcher.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid):
            await asyncio.sleep(0)
