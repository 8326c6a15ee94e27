"""Pages as tests ask for them, and projects whose ids are numbers."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import asyncpg

from tests.conformance.test_context import sqlstate_of

READ = """
    SELECT tenancy.read_page($1, sort => $2, direction => $3, filters => $4::jsonb, page_limit => $5, cursor => $6)
"""
ORIGIN = "2026-03-01T00:00:00Z"

Page = dict[str, Any]


def arguments(
    collection: str = "2.projects",
    *,
    sort: str | None = None,
    direction: str | None = None,
    filters: object = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> tuple[object, ...]:
    return collection, sort, direction, None if filters is None else json.dumps(filters), limit, cursor


async def read(connection: asyncpg.Connection, collection: str = "2.projects", **asked: Any) -> Page:
    return dict(json.loads(await connection.fetchval(READ, *arguments(collection, **asked))))


async def refused(connection: asyncpg.Connection, collection: str = "2.projects", **asked: Any) -> str:
    return await sqlstate_of(connection, READ, *arguments(collection, **asked))


async def walk(connection: asyncpg.Connection, way: str = "next", **asked: Any) -> list[Page]:
    """Every page from the first one, or from a given cursor, on."""
    pages = [await read(connection, **asked)]
    while pages[-1]["page"][f"has_{way}"]:
        assert len(pages) < 200, "the pages have no end"
        pages.append(await read(connection, **{**asked, "cursor": pages[-1]["page"][way]}))
    return pages


def numbers(page: Page) -> list[int]:
    """What number() made of each item's id."""
    return [UUID(item["id"]).int for item in page["items"]]


def visited(pages: list[Page]) -> list[int]:
    return [number for page in pages for number in numbers(page)]


async def put(connection: asyncpg.Connection, number: int, name: str = "x", after: str = "0 s") -> None:
    """A project whose id is a number, created some time after the origin."""
    await connection.execute(
        "INSERT INTO tb_project (id, name, created_at) VALUES ($1, $2, $3::text::timestamptz + $4::text::interval)",
        UUID(int=number),
        name,
        ORIGIN,
        after,
    )


async def nine(connection: asyncpg.Connection) -> None:
    """Projects 1 to 9 in three groups of equal names, and no other."""
    await connection.execute("DELETE FROM tb_project")
    for number in range(1, 10):
        await put(connection, number, f"group {(number - 1) // 3}")
