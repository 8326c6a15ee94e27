"""Pattern 22: pages by cursor. Nothing is skipped or repeated, and a deep page costs what the first one costs."""

from __future__ import annotations

import hashlib
import hmac
import json
import string
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.conformance.conftest import Ground
from tests.conformance.patterns.plans import Plan, explain
from tests.conformance.patterns.undone import undone
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import Member, World

READ = """
    SELECT tenancy.read_page($1, sort => $2, direction => $3, filters => $4::jsonb, page_limit => $5, cursor => $6)
"""
STATEMENT = """
    SELECT tenancy.page_statement(view_name, $2::text[], $3, '', true, 0)
    FROM tenancy.find_collection($1)
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


# The cursor


async def test_the_mac_is_hmac_sha_256(world: World) -> None:
    """Requirement 3: RFC 4231, test cases 1 to 4, 6 and 7, and keys around the length of a block."""
    vectors = [
        (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (bytes(range(1, 26)), b"\xcd" * 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        (
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            b"\xaa" * 131,
            b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be"
            b" hashed before being used by the HMAC algorithm.",
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ]
    for length in (0, 1, 63, 64, 65):
        key = bytes(range(length))
        vectors.append((key, b"\x00m\\", hmac.new(key, b"\x00m\\", hashlib.sha256).hexdigest()))
    async with world.admin(world.a) as connection:
        for key, message, expected in vectors:
            found: bytes = await connection.fetchval("SELECT tenancy.hmac_sha256($1, $2)", key, message)
            assert found.hex() == expected


async def test_a_cursor_that_was_changed_is_refused(world: World) -> None:
    """Requirement 3, check 22.5: each of its characters counts, and so does its length."""
    async with undone(world, world.a) as connection:
        await nine(connection)
        cursor = (await read(connection, sort="name", limit=2))["page"]["next"]
        assert numbers(await read(connection, sort="name", limit=2, cursor=cursor)) == [3, 4]
        changed = [
            cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in range(0, len(cursor), 5)
        ]
        changed += [cursor[:-1], cursor + "A", cursor + "=", cursor[1:], cursor.swapcase(), f" {cursor}", cursor * 200]
        changed += ["", "abc", "null", "'", "A" * 64, "ä" * 64, "A" * 100_000, "5"]
        for attempt in changed:
            assert await refused(connection, sort="name", limit=2, cursor=attempt) == "22023", attempt


async def test_the_last_character_counts_whole(world: World) -> None:
    """Requirement 3: base64 ignores bits of it when the length is no multiple of four."""
    async with undone(world, world.a) as connection:
        lengths = set()
        for name in ("a", "ab", "abc"):
            await connection.execute("DELETE FROM tb_project")
            await put(connection, 1, name)
            await put(connection, 2, name)
            cursor = (await read(connection, sort="name", limit=1))["page"]["next"]
            lengths.add(len(cursor) % 4)
            for letter in string.ascii_letters + string.digits + "-_":
                if letter != cursor[-1]:
                    assert await refused(connection, sort="name", limit=1, cursor=cursor[:-1] + letter) == "22023"
        assert lengths == {0, 2, 3}


async def test_a_cursor_is_for_one_collection_sort_direction_and_filter(world: World) -> None:
    """Requirement 3: used with anything else it is refused; the limit alone may change."""
    async with undone(world, world.a) as connection:
        await nine(connection)
        filters = {"name": {"in": ["group 0", "group 1"]}, "created_at": {"gte": ORIGIN}}
        asked: dict[str, Any] = {"sort": "name", "direction": "asc", "filters": filters}
        cursor = (await read(connection, **asked, limit=2))["page"]["next"]
        for other in (
            {"sort": "created_at"},
            {"sort": None},
            {"direction": "desc"},
            {"filters": None},
            {"filters": {"name": {"in": ["group 0"]}, "created_at": {"gte": ORIGIN}}},
            {"filters": {"name": {"in": ["group 1", "group 0"]}, "created_at": {"gte": ORIGIN}}},
            {"filters": {"created_at": {"gte": ORIGIN}}},
        ):
            assert await refused(connection, **{**asked, **other}, cursor=cursor) == "22023", other
        assert await refused(connection, "1.projects", **asked, cursor=cursor) == "22023"
        reordered = {"created_at": {"gte": ORIGIN}, "name": {"in": ["group 0", "group 1"]}}
        assert numbers(await read(connection, **{**asked, "filters": reordered}, limit=3, cursor=cursor)) == [3, 4, 5]
        plain = (await read(connection, limit=2))["page"]["next"]
        assert await refused(connection, "2.users", cursor=plain) == "22023"


async def test_a_cursor_of_another_tenant_is_refused(shared_world: World) -> None:
    """Requirement 3, check 22.5: both are served by the same views, with the same secret."""
    async with undone(shared_world, shared_world.a) as connection:
        cursor = (await read(connection, limit=1))["page"]["next"]
    async with undone(shared_world, shared_world.b) as connection:
        assert await refused(connection, limit=1, cursor=cursor) == "22023"


async def test_a_cursor_of_another_home_is_refused(dedicated_world: World) -> None:
    """Requirement 3: whatever the two homes share."""
    async with undone(dedicated_world, dedicated_world.a) as connection:
        cursor = (await read(connection, limit=1))["page"]["next"]
    async with undone(dedicated_world, dedicated_world.b) as connection:
        assert await refused(connection, limit=1, cursor=cursor) == "22023"


async def test_each_database_has_a_secret_that_no_request_can_read(world: World) -> None:
    """Requirement 3: a copy of a template database gets a secret of its own when it becomes a home."""
    secrets = []
    for member in (world.a, world.b):
        async with world.admin(member) as connection:
            secrets.append(await connection.fetchval("SELECT secret FROM tenancy.cursor_secret"))
        async with undone(world, member) as connection:
            for statement in (
                "SELECT secret FROM tenancy.cursor_secret",
                "UPDATE tenancy.cursor_secret SET secret = ''",
                "SELECT tenancy.renew_cursor_secret()",
                "SELECT tenancy.cursor_mac('[]', '')",
            ):
                assert await sqlstate_of(connection, statement) == "42501", statement
    assert all(len(secret) == 32 for secret in secrets)
    assert (secrets[0] == secrets[1]) == (world.mode != "database")


async def test_a_cursor_outlives_its_session_and_its_settings(world: World) -> None:
    """Requirement 3: a key value has one text, whatever zone or style of dates a session has."""
    async with undone(world, world.a) as connection:
        cursor = (await read(connection, sort="created_at", limit=1))["page"]["next"]
        expected = await read(connection, sort="created_at", limit=1, cursor=cursor)
    async with undone(world, world.a) as connection:
        await connection.execute("SET LOCAL timezone = 'Asia/Tokyo'; SET LOCAL datestyle = 'SQL, DMY'")
        found = await read(connection, sort="created_at", limit=1, cursor=cursor)
        assert [item["id"] for item in found["items"]] == [item["id"] for item in expected["items"]]


async def test_a_key_may_hold_any_text(world: World) -> None:
    """Requirement 3: quotes, backslashes, other scripts and long texts come through the cursor unchanged."""
    names = ["'", '"', "\\x41", "\\", "a\nb", "Zażółć 漢字 🐘", "%s", "{}", "x" * 200, "null", " lead"]
    async with undone(world, world.a) as connection:
        await connection.execute("DELETE FROM tb_project")
        for number, name in enumerate(names, start=1):
            await put(connection, number, name)
        pages = await walk(connection, sort="name", limit=1)
        assert sorted(visited(pages)) == list(range(1, len(names) + 1))
        back = await walk(connection, "prev", sort="name", limit=1, cursor=pages[-1]["page"]["prev"])
        assert visited(back) == visited(pages)[-2::-1]


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


# The plans

SAMPLES = {
    "uuid": str(UUID(int=5)),
    "text": "m",
    "timestamp with time zone": ORIGIN,
    "date": "2026-03-01",
    "integer": "5",
    "bigint": "5",
    "boolean": "true",
}  # the types whose comparison is leakproof


async def plan_of(
    connection: asyncpg.Connection, member: Member, collection: str, keys: list[str], rising: bool, values: list[str]
) -> Plan:
    statement = await connection.fetchval(STATEMENT, collection, keys, rising)
    return await explain(connection, f"{statement} LIMIT 21", [member.id, values])


async def test_a_deep_page_reads_its_own_rows_only(ground: Ground) -> None:
    """Requirements 2 and 7, check 22.6: 200 000 rows, in shared tables, as the role of requests."""
    world = await ground.world("shared")
    async with world.owner(world.a) as connection:
        await connection.execute(
            """
            INSERT INTO tb_project (tenant_id, id, name, created_at)
            SELECT $1, ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'p' || lpad((n / 7)::text, 6, '0'),
                   $2::text::timestamptz + n / 7 * interval '1 second'
            FROM generate_series(1, 200000) AS n
            """,
            world.a.id,
            ORIGIN,
        )
        await connection.execute("ANALYZE tb_project")
    deep = "00000000-0000-0000-0000-000000150000"
    async with undone(world, world.a) as connection:
        # `page_statement` is what read_page() runs.
        moment = await connection.fetchval("SELECT created_at::text FROM tb_project WHERE id = $1", UUID(deep))
        for keys, values in (
            (["created_at", "id"], [moment, deep]),
            (["name", "id"], ["p021428", deep]),
            (["id"], [deep]),
        ):
            for rising in (True, False):
                plan = await plan_of(connection, world.a, "2.projects", keys, rising, values)
                assert plan.rows_read("tb_project") <= 21, plan
                conditions = plan.index_conditions()
                compared = "ROW(" if len(keys) > 1 else "(id "
                assert any("tenant_id = " in found and compared in found for found in conditions), plan
                assert not {"Sort", "Incremental Sort", "Seq Scan"} & set(plan.types), plan

        page = await read(connection, sort="created_at", limit=100)
        for _ in range(3):
            page = await read(connection, sort="created_at", limit=100, cursor=page["page"]["next"])
        expected = await connection.fetch("SELECT id FROM tb_project ORDER BY created_at, id OFFSET 300 LIMIT 100")
        assert [item["id"] for item in page["items"]] == [str(row["id"]) for row in expected]


async def test_each_declared_sort_is_a_range_of_an_index(shared_world: World) -> None:
    """Requirement 2 and 7: for every collection and every sort, in both directions, under row-level security."""
    world = shared_world
    faults = []
    async with undone(world, world.a) as connection:
        # The tables are small: only what the planner could not avoid is a fault.
        await connection.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
        )
        for name, resource in world.template.manifest.resources.items():
            api = max(resource.api or world.template.manifest.api)
            collection = f"{api}.{name}"
            sorts = dict.fromkeys((*resource.sorts, resource.key[0]))
            if resource.order[0].removeprefix("-") not in sorts:
                faults.append(f"{collection} has an order that is no sort: its first page cannot be read without one")
            for sort in sorts:
                keys = [sort, *(column for column in resource.key if column != sort)]
                types = [
                    await connection.fetchval(
                        "SELECT tenancy.column_type(view_name, $2) FROM tenancy.find_collection($1)", collection, column
                    )
                    for column in keys
                ]
                if unfit := set(types) - SAMPLES.keys():
                    faults.append(f"{collection} by {sort}: no index serves {unfit} under row-level security")
                    continue
                for rising in (True, False):
                    plan = await plan_of(
                        connection, world.a, collection, keys, rising, [SAMPLES[type_] for type_ in types]
                    )
                    compared = "ROW(" if len(keys) > 1 else f"{sort} "
                    if {"Sort", "Incremental Sort"} & set(plan.types):
                        faults.append(f"{collection} by {sort}: sorts")
                    if not any("tenant_id = " in found and compared in found for found in plan.index_conditions()):
                        faults.append(f"{collection} by {sort}: the cursor is no condition of an index")
    assert not faults, "\n".join(sorted(set(faults)))


async def test_no_declared_sort_can_be_null(shared_world: World) -> None:
    """Requirement 2: a row whose sort value is null would be on no page. The planner proves that none is."""
    world = shared_world
    faults = []
    async with world.owner(world.a) as connection:
        if await connection.fetchval("SELECT current_setting('server_version_num')::integer") < 170000:
            pytest.skip("the planner draws no conclusions from NOT NULL before PostgreSQL 17")
        for name, resource in world.template.manifest.resources.items():
            api = max(resource.api or world.template.manifest.api)
            for column in dict.fromkeys((*resource.sorts, *resource.key)):
                found = await connection.fetchval(
                    f'EXPLAIN (FORMAT JSON) SELECT FROM "{world.a.schema}__api_v{api}".{name} WHERE {column} IS NULL'
                )
                if not _reads_nothing(json.loads(found)[0]["Plan"]):
                    faults.append(f"{api}.{name} by {column}")
    assert not faults, f"these may be null: {faults}"


def _reads_nothing(plan: dict[str, Any]) -> bool:
    """Whether the plan knows that there is no such row: nothing below it is executed."""
    if plan.get("One-Time Filter") == "false":
        return True
    children = [child for child in plan.get("Plans", ()) if child.get("Parent Relationship") in ("Outer", "Inner",
                "Member", "Subquery")]  # fmt: skip
    return bool(children) and all(_reads_nothing(child) for child in children)
