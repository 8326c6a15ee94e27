"""Categories as the tests of both trees use them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

from tests.conformance.patterns.undone import undone
from tests.conformance.world import Member, World

Document = dict[str, Any]

# 20 roots with 30 children each, which have 29 each: 18 020 categories of tenant $1, and the parent of each.
MANY = """
INSERT INTO tb_category (tenant_id, id, parent_id, slug, name, sort_order, path)
SELECT $1::uuid, md5($1::uuid || path)::uuid, md5($1::uuid || above)::uuid, slug, initcap(slug), number, path::ltree
FROM (
    SELECT 'r' || r AS path, NULL AS above, 'r' || r AS slug, r AS number FROM generate_series(1, 20) AS r
    UNION ALL
    SELECT format('r%s.a%s', r, a), 'r' || r, 'a' || a, a FROM generate_series(1, 20) AS r, generate_series(1, 30) AS a
    UNION ALL
    SELECT format('r%s.a%s.b%s', r, a, b), format('r%s.a%s', r, a), 'b' || b, b
    FROM generate_series(1, 20) AS r, generate_series(1, 30) AS a, generate_series(1, 29) AS b
) AS node
"""


class Categories:
    """The functions of the version, called on one connection in a tenant's context."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def call(self, function: str, **given: Any) -> Document:
        """The mutation result of `fn_<function>`; uuids may be given as they are."""
        given = json.loads(json.dumps(given, default=str))
        found: Document = json.loads(
            await self.connection.fetchval(f"SELECT fn_{function}($1::jsonb)", json.dumps(given))
        )
        assert set(found) == {"success", "code", "message", "data", "errors"}
        return found

    async def add(self, name: str, parent: UUID | None = None, **more: Any) -> UUID:
        made = await self.call("create_category", name=name, parent_id=parent, **more)
        assert made["success"], made
        return UUID(made["data"]["id"])

    async def succeed(self, function: str, **given: Any) -> Document:
        """The data of a call that is not refused."""
        result = await self.call(function, **given)
        assert result["success"], result
        data: Document = result["data"]
        return data

    async def refusal(self, function: str, **given: Any) -> str:
        """The code of a call that is refused, which says nothing of what is stored."""
        result = await self.call(function, **given)
        assert not result["success"], result
        assert result["data"] is None
        assert "tb_category" not in result["message"]
        return str(result["code"])

    async def names(self, top: UUID | None = None) -> list[str]:
        """The tree, or a branch, in the order of display."""
        return [node["name"] for node in (await self.succeed("category_tree", id=top))["categories"]]

    async def paths(self) -> dict[str, str]:
        """Name → path of every category."""
        rows = await self.connection.fetch("SELECT name, path_text FROM v_category ORDER BY path_text")
        return {row["name"]: row["path_text"] for row in rows}

    async def assert_sound(self) -> None:
        """Both forms are one tree, and its constraints hold before the commit that would check them."""
        await self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
        report = await self.succeed("check_categories")
        assert (report["consistent"], report["problems"]) == (True, [])


@asynccontextmanager
async def categories(world: World, member: Member | None = None) -> AsyncIterator[Categories]:
    """A request of a tenant without categories, undone afterwards."""
    async with undone(world, member or world.a) as connection:
        yield Categories(connection)


async def add_many(world: World, member: Member) -> None:
    """18 020 categories, kept."""
    async with world.owner(member) as connection:
        await connection.execute(MANY, member.id)
        await connection.execute("ANALYZE tb_category")
