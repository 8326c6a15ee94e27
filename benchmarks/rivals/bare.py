"""The least that can be written: Starlette, asyncpg and the gated statement. It believes any tenant header.

The pool's reset is left out, so that a request is one round trip, as in the control plane.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.rivals import rival
from control_plane.pools.listing import Shape, Sort
from control_plane.pools.lists import list_statement

LIMIT = 100


def create_app() -> Starlette:
    given = rival()
    order = (Sort("created_at", "timestamptz"), Sort("id", "uuid"))
    statement = list_statement(given.schema_name, 1, "users", Shape(order, cursors=True))
    user_id = UUID(given.user_id)
    pool: asyncpg.Pool[Any]

    async def keep(connection: Any) -> None:
        return None

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        nonlocal pool
        async with asyncpg.create_pool(
            given.dsn,
            min_size=given.pool_size,
            max_size=given.pool_size,
            max_cached_statement_lifetime=0,
            max_queries=2**31,
            server_settings={"jit": "off"},
            reset=keep,
        ) as pool:
            yield

    async def users(request: Request) -> Response:
        tenant_id = UUID(request.headers["x-tenant-id"])
        async with pool.acquire() as connection:
            answer = await connection.fetchval(statement, tenant_id, user_id, None, [], LIMIT)
        return Response(answer[0], media_type="application/json")

    return Starlette(routes=[Route("/api/v1/users", users)], lifespan=lifespan)
