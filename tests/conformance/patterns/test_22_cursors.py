"""Pattern 22: a cursor is opaque, and good for one place of one tenant in one order under one filter."""

from __future__ import annotations

import hashlib
import hmac
import string
from typing import Any

from tests.conformance.patterns.pages import ORIGIN, nine, numbers, put, read, refused, visited, walk
from tests.conformance.patterns.undone import undone
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World


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
