"""Pattern 22: pages by cursor. Nothing is skipped, nothing is repeated, and nothing is read that is not declared."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.conformance.patterns.pages import ORIGIN, Page, nine, numbers, put, read, refused, visited, walk
from tests.conformance.patterns.undone import undone
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import Member, World

# The register


async def test_only_what_is_declared_is_a_collection(world: World) -> None:
    """Requirement 1: a table, a base view, a resource of no or of another API version is not found."""
    async with undone(world, world.a) as connection:
        for collection in (
            "2.tb_secrets",
            "2.tb_user",
            "2.v_user",
            "tb_user",
            "users",
            "",
            "3.users",
            "1.people",
            "2.users; DROP TABLE tb_user",
            '2."users"',
            ".users",
            "2.",
            "2.users.id",
        ):
            assert await refused(connection, collection) == "P0002", collection


async def test_only_what_is_declared_may_be_sorted_and_filtered(world: World) -> None:
    """Requirement 1: sorts, directions, filters and operators come from the register."""
    attempts: tuple[dict[str, Any], ...] = (
        {"sort": "owner_id"},
        {"sort": "data"},
        {"sort": "tenant_id"},
        {"sort": "name; DROP TABLE tb_user"},
        {"sort": ""},
        {"direction": "backwards"},
        {"direction": "DESC"},
        {"direction": ""},
        {"filters": {"data": {"eq": "x"}}},
        {"filters": {"owner_id": {"gt": str(uuid4())}}},
        {"filters": {"name": {"like": "x%"}}},
        {"filters": {"name": {"; --": "x"}}},
        {"filters": {"name": "x"}},
        {"filters": {"name": {}}},
        {"filters": []},
        {"filters": "name"},
    )
    async with undone(world, world.a) as connection:
        for asked in attempts:
            assert await refused(connection, **asked) == "22023", asked


async def test_values_of_filters_are_values(world: World) -> None:
    """Requirement 1 and 7: a value that is not of the column's type is refused; SQL in a value finds nothing."""
    async with undone(world, world.a) as connection:
        for filters in (
            {"id": {"eq": "abc"}},
            {"id": {"eq": None}},
            {"id": {"eq": ["a"]}},
            {"id": {"in": "abc"}},
            {"id": {"in": [str(uuid4())] * 101}},
            {"id": {"in": [str(uuid4()), "abc"]}},
            {"created_at": {"gt": "yesterday"}},
            {"created_at": {"gt": "now"}},
            {"created_at": {"gt": "2026-13-01"}},
            {"created_at": {"gt": 5}},
            {"name": {"eq": {"a": 1}}},
        ):
            assert await refused(connection, filters=filters) == "22023", filters
        page = await read(connection, filters={"name": {"eq": "x' OR true --"}})
        assert page == {"items": [], "page": {"next": None, "prev": None, "has_next": False, "has_prev": False}}


async def test_filters_narrow_the_pages(world: World) -> None:
    """Requirement 1: each operator, alone and with others, over all pages."""
    async with undone(world, world.a) as connection:
        await nine(connection)
        for filters, found in (
            ({"name": {"eq": "group 1"}}, [4, 5, 6]),
            ({"name": {"in": ["group 0", "group 2", "no, such"]}}, [1, 2, 3, 7, 8, 9]),
            ({"name": {"in": []}}, []),
            ({"id": {"in": [str(UUID(int=2)), str(UUID(int=9))]}}, [2, 9]),
            ({"id": {"eq": str(UUID(int=5))}, "name": {"eq": "group 1"}}, [5]),
            ({"created_at": {"gte": ORIGIN, "lte": "2026-03-01T01:00:00+01:00"}}, list(range(1, 10))),
            ({"created_at": {"gt": ORIGIN}}, []),
            ({"owner_id": {"eq": str(uuid4())}}, []),
        ):
            pages = await walk(connection, sort="name", filters=filters, limit=2)
            assert visited(pages) == found, filters


async def test_the_other_operators(scratch: World) -> None:
    """Requirement 1: those that no resource of the template declares are understood too."""
    async with scratch.admin(scratch.a) as connection:
        everything = ["eq", "neq", "gt", "gte", "lt", "lte", "in", "is", "like", "ilike"]
        await connection.execute(
            """
            UPDATE tenancy.manifests
            SET manifest = jsonb_set(manifest, '{collections,2.projects,filters}', $1::jsonb)
            """,
            json.dumps({"name": everything, "owner_id": everything}),
        )
    async with undone(scratch, scratch.a) as connection:
        await nine(connection)
        for filters, found in (
            ({"name": {"neq": "group 1"}}, [1, 2, 3, 7, 8, 9]),
            ({"name": {"like": "%p 2"}}, [7, 8, 9]),
            ({"name": {"ilike": "GROUP 0"}}, [1, 2, 3]),
            ({"name": {"gt": "group 0", "lt": "group 2"}}, [4, 5, 6]),
            ({"name": {"is": "null"}}, []),
            ({"owner_id": {"is": "null"}, "name": {"is": "not_null", "lte": "group 0"}}, [1, 2, 3]),
        ):
            assert visited(await walk(connection, sort="id", filters=filters, limit=2)) == found, filters
        assert await refused(connection, filters={"name": {"is": "true"}}) == "22023"


# The order


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_groups_of_equal_values_lose_and_repeat_nothing(world: World, direction: str) -> None:
    """Requirement 2, check 22.1: the key follows the sort, in the same direction."""
    async with undone(world, world.a) as connection:
        await nine(connection)
        pages = await walk(connection, sort="name", direction=direction, limit=2)
        assert [len(page["items"]) for page in pages] == [2, 2, 2, 2, 1]
        assert visited(pages) == (list(range(1, 10)) if direction == "asc" else list(range(9, 0, -1)))
        assert [page["page"]["has_next"] for page in pages] == [True, True, True, True, False]
        assert [page["page"]["has_prev"] for page in pages] == [False, True, True, True, True]
        assert pages[-1]["page"]["next"] is None
        assert pages[0]["page"]["prev"] is None


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_the_way_back_shows_the_same_pages(world: World, direction: str) -> None:
    """Requirement 4, check 22.2: items are in display order for prev too."""
    async with undone(world, world.a) as connection:
        await nine(connection)
        asked: dict[str, Any] = {"sort": "name", "direction": direction, "limit": 2}
        pages = await walk(connection, **asked)
        back = await walk(connection, "prev", **asked, cursor=pages[-1]["page"]["prev"])
        assert [numbers(page) for page in reversed(back)] == [numbers(page) for page in pages[:-1]]
        assert [page["page"]["has_prev"] for page in back] == [True, True, True, False]
        assert all(page["page"]["has_next"] for page in back)

    async with undone(world, world.a) as connection:
        await nine(connection)
        first = await read(connection, sort="name", limit=6)
        after_six = await read(connection, sort="name", limit=2, cursor=first["page"]["next"])
        assert numbers(after_six) == [7, 8]
        before = await read(connection, sort="name", limit=2, cursor=after_six["page"]["prev"])
        assert numbers(before) == [5, 6]
        assert numbers(await read(connection, sort="name", limit=2, cursor=before["page"]["next"])) == [7, 8]


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_equal_times_and_times_a_microsecond_apart(world: World, direction: str) -> None:
    """Requirement 3, check 22.3: the cursor holds microseconds."""
    async with undone(world, world.a) as connection:
        await connection.execute("DELETE FROM tb_project")
        for number in range(1, 31):
            await put(connection, number)
        for number in range(31, 61):
            await put(connection, number, after=f"{number - 30} microseconds")
        pages = await walk(connection, sort="created_at", direction=direction, limit=7)
        expected = list(range(1, 61))
        assert visited(pages) == (expected if direction == "asc" else expected[::-1])
        back = await walk(connection, "prev", sort="created_at", direction=direction, limit=7,
                          cursor=pages[-1]["page"]["prev"])  # fmt: skip
        assert sorted(visited([*back, pages[-1]])) == expected


async def test_without_a_sort_the_order_of_the_register_holds(world: World) -> None:
    """Requirement 4: the first page needs no cursor, and nothing else either."""
    async with undone(world, world.a) as connection:
        await connection.execute("DELETE FROM tb_project")
        for number in range(1, 31):
            await put(connection, number, after=f"{60 - number} s")
        page = await read(connection)
        assert numbers(page) == list(range(30, 10, -1))
        assert page["page"]["has_next"]
        assert numbers(await read(connection, cursor=page["page"]["next"])) == list(range(10, 0, -1))


async def test_the_key_itself_is_a_sort(world: World) -> None:
    """Requirement 2: a unique column needs nothing after it."""
    async with undone(world, world.a) as connection:
        await nine(connection)
        assert visited(await walk(connection, sort="id", direction="desc", limit=4)) == list(range(9, 0, -1))


# The page


async def test_an_empty_collection_is_an_empty_page(world: World) -> None:
    """Requirement 4: [] and no way on."""
    async with undone(world, world.a) as connection:
        await connection.execute("DELETE FROM tb_project")
        page = await read(connection)
        assert page == {"items": [], "page": {"next": None, "prev": None, "has_next": False, "has_prev": False}}


async def test_items_are_the_documents_of_the_api_version(world: World) -> None:
    """Requirement 4: what the same view gives to a list."""
    async with undone(world, world.a) as connection:
        for api in (1, 2):
            page = await read(connection, f"{api}.users", sort="email")
            listed = await connection.fetch(
                f'SELECT data FROM "{world.a.schema}__api_v{api}".users WHERE tenant_id = $1 ORDER BY email', world.a.id
            )
            assert page["items"] == [json.loads(row["data"]) for row in listed]


async def test_the_limit_is_1_to_100(world: World) -> None:
    """Requirement 5, check 22.5: 20 by itself."""
    async with undone(world, world.a) as connection:
        await connection.execute("INSERT INTO tb_project (name) SELECT 'n' FROM generate_series(1, 150)")
        assert len((await read(connection))["items"]) == 20
        assert len((await read(connection, limit=1))["items"]) == 1
        assert len((await read(connection, limit=100))["items"]) == 100
        for limit in (0, -1, -5, 101, 2_147_483_647):
            assert await refused(connection, limit=limit) == "22023"


async def test_rows_that_come_and_go_move_no_other(world: World) -> None:
    """Requirement 6: before, after and at the cursor."""
    async with undone(world, world.a) as connection:
        await nine(connection)
        page = await read(connection, sort="name", limit=4)
        await put(connection, 100, "a group before")
        await put(connection, 101, "group 9")
        await connection.execute(
            "DELETE FROM tb_project WHERE id = ANY ($1)", [UUID(int=1), UUID(int=4), UUID(int=6)]
        )  # 4 is the row that the cursor stands on
        rest = await walk(connection, sort="name", limit=2, cursor=page["page"]["next"])
        assert visited(rest) == [5, 7, 8, 9, 101]
        back = await walk(connection, "prev", sort="name", limit=2, cursor=rest[0]["page"]["prev"])
        assert visited(list(reversed(back))) == [100, 2, 3]


async def test_a_page_that_lost_all_its_rows_leads_back(world: World) -> None:
    """Requirement 6: the row at which the way here began belongs to the page before, and has_… tell what is there."""
    async with undone(world, world.a) as connection:
        await nine(connection)
        page = await read(connection, sort="name", limit=4)
        await connection.execute("DELETE FROM tb_project WHERE id > $1", UUID(int=4))
        empty = await read(connection, sort="name", limit=4, cursor=page["page"]["next"])
        assert empty["items"] == []
        assert not empty["page"]["has_next"]
        back = await read(connection, sort="name", limit=2, cursor=empty["page"]["prev"])
        assert numbers(back) == [3, 4]
        assert back["page"]["has_prev"]
        assert not back["page"]["has_next"]

        await connection.execute("DELETE FROM tb_project")
        gone = await read(connection, sort="name", limit=4, cursor=empty["page"]["prev"])
        assert gone == {"items": [], "page": {"next": None, "prev": None, "has_next": False, "has_prev": False}}
        await put(connection, 7, "group 2")
        forth = await read(connection, sort="name", limit=4, cursor=empty["page"]["prev"])
        assert forth["items"] == []
        assert numbers(await read(connection, sort="name", limit=4, cursor=forth["page"]["next"])) == [7]


async def test_without_a_tenant_there_is_no_page(world: World) -> None:
    """Requirement 1: and it says so."""
    async with world.request(world.a) as connection:
        assert await refused(connection) == "42501"


# Through the API


async def call(connection: asyncpg.Connection, member: Member, document: object) -> Page:
    function = f'"{member.schema}__api_v2".read_page'
    return dict(json.loads(await connection.fetchval(f"SELECT {function}($1)", json.dumps(document))))


async def test_the_api_reads_pages(world: World) -> None:
    """Requirement 4: the function read_page of API version 2, in a read-only transaction."""
    async with undone(world, world.a, read_only=True) as connection:
        first = await call(connection, world.a, {"resource": "projects", "limit": 2, "sort": "name"})
        assert first["success"]
        assert [item["name"] for item in first["data"]["items"]] == ["acme-secret-0", "acme-secret-1"]
        asked = {"resource": "projects", "limit": 2, "sort": "name", "cursor": first["data"]["page"]["next"]}
        second = await call(connection, world.a, asked)
        assert [item["name"] for item in second["data"]["items"]] == ["acme-secret-2"]


async def test_the_api_refuses_with_errors_of_the_request(world: World) -> None:
    """Requirement 1 and 5, check 22.5: 400 (22023) and 404 (P0002)."""
    async with undone(world, world.a) as connection:
        function = f'"{world.a.schema}__api_v2".read_page'
        for document, state in (
            ({"resource": "tb_secrets"}, "P0002"),
            ({"resource": "projects", "limit": 0}, "22023"),
            ({"resource": "projects", "limit": -1}, "22023"),
            ({"resource": "projects", "limit": 101}, "22023"),
            ({"resource": "projects", "limit": "abc"}, "22023"),
            ({"resource": "projects", "limit": 1e300}, "22023"),
            ({"resource": "projects", "cursor": "abc"}, "22023"),
            ({"resource": "projects", "cursor": 5}, "22023"),
            ({"resource": "projects", "direction": "up"}, "22023"),
            ({"resource": "projects", "sort": "data"}, "22023"),
            ({"resource": "projects", "table": "tb_user"}, "22023"),
            ({"resource": 5}, "22023"),
            ({}, "22023"),
            ([], "22023"),
        ):
            assert await sqlstate_of(connection, f"SELECT {function}($1)", json.dumps(document)) == state, document
