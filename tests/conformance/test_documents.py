"""What holds for every document of every resource, whichever version brought it: one text per instant, no private field
outside its own document, and empty is empty."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.conformance.patterns.posts import call, undone
from tests.conformance.world import World

Document = dict[str, Any]

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00")
LIKE_AN_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:")
PRIVATE = {"email", "phone", "settings", "private_notes", "fields", "password"}
OWN = {"User": {"email", "settings"}, "Person": {"email", "phone", "private_notes"}}  # where they belong


async def fill(connection: asyncpg.Connection, world: World) -> None:
    """Something of everything, once with all that it can have and once with as little as it can have."""

    async def made(function: str, **given: object) -> Document:
        result = await call(connection, world.a, function, **given)
        assert result["success"], (function, result)
        return dict(result["data"])

    gone = uuid4()
    await connection.execute(
        """
        INSERT INTO tb_user (id, email, name, bio, avatar_url, settings, phone, private_notes)
        VALUES ($1, 'gone@secret.example', 'Gone', 'x', 'https://x.example/', '{"api_key": "k-123"}', '111-1111', 'n-1')
        """,
        gone,
    )
    await made("create_project", name="full", owner_id=world.a.user_id)
    await made("create_project", name="bare")
    category = await made("create_category", name="Garden")
    await made("create_category", name="Spades", parent_id=category["category"]["id"])
    products = [
        (await made("create_product", sku=sku, name=sku, price="1.50", **more))["product"]["id"]
        for sku, more in (("full", {"category_id": category["category"]["id"]}), ("bare", {}))
    ]
    await made("set_stock", product_id=products[0], location="Bern", in_stock=5)
    await made("create_review", product_id=products[0], rating=5, content="Works.")
    await connection.execute(
        "INSERT INTO tb_review (product_id, author_id, rating, content) VALUES ($1, $2, 1, 'x')",
        UUID(products[0]),
        gone,
    )
    await made("set_price", product_id=products[0], currency="EUR", price=1, valid_from="2024-01-01")
    await made("place_order", customer="c", items=[{"sku": "full", "qty": 1}])
    await made("place_order", customer="c")
    posts = [(await made("create_post", title=title, content="x"))["post"]["id"] for title in ("full", "bare")]
    await made("create_comment", post_id=posts[0], content="x")
    for type_, entity, key in (
        ("post_liked", "Post", posts[0]),
        ("post_liked", "Post", uuid4()),
        ("new_follower", "User", gone),
    ):
        await connection.execute(
            "INSERT INTO tb_notification (user_id, type, actor_id, entity_type, entity_id, data) "
            """VALUES ($1, $2, $3, $4, $5, '{"actor_name": "Gone"}')""",
            world.a.user_id, type_, gone, entity, UUID(str(key)),
        )  # fmt: skip
    await made("announce", text="x")
    await made("track_page_view", page_url="/")
    await made("track_button_click", button="b", page_url="/")
    await made("submit_form", form="login", fields={"password": "hunter2"})
    await connection.execute("DELETE FROM tb_user WHERE id = $1", gone)


async def documents(
    connection: asyncpg.Connection, world: World, but: Sequence[str] = ()
) -> list[tuple[str, Document]]:
    """Each document of each resource of each API version, with the name of both; there is one of each at least."""
    found: list[tuple[str, Document]] = []
    manifest = world.template.manifest
    for name, resource in manifest.resources.items():
        for api in resource.api or manifest.api:
            rows = await connection.fetch(f'SELECT data FROM "{world.a.schema}__api_v{api}"."{name}"')
            assert bool(rows) == (name not in but), name
            found += [(f"v{api}/{name}", json.loads(row["data"])) for row in rows]
    return found


def inner(value: object) -> Iterator[Document]:
    """The objects within a value, itself included."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from inner(each)


async def test_an_instant_has_one_text(world: World) -> None:
    """X6: UTC and microseconds. Request roles are pinned to it, whatever the server's own zone."""
    async with undone(world, world.a, roles=("admin",)) as connection:
        source = await connection.fetchrow("SELECT setting, source FROM pg_settings WHERE name = 'TimeZone'")
        assert source is not None
        assert tuple(source) == ("UTC", "user")
        await fill(connection, world)
        seen = 0
        for where, document in await documents(connection, world):
            for text in re.findall(r'"([^"]*)"', json.dumps(document)):
                if LIKE_AN_INSTANT.match(text):
                    assert INSTANT.fullmatch(text), (where, text)
                    seen += 1
        assert seen > 20


@pytest.mark.parametrize("roles", [(), ("admin",)])
async def test_private_fields_stand_in_their_own_documents(world: World, roles: tuple[str, ...]) -> None:
    """X7: for an admin too, who may read them where they belong."""
    async with undone(world, world.a, roles=("admin",)) as connection:
        await fill(connection, world)
        await connection.execute(
            "SELECT tenancy.set_tenant_context($1, $2, roles => $3)", world.a.id, world.a.user_id, list(roles)
        )
        for where, document in await documents(connection, world, () if roles else ("tenant_activities",)):
            allowed = OWN.get(document["__typename"], set())
            assert not PRIVATE & set(document) - allowed, where
            for nested in inner(list(document.values())):
                assert not PRIVATE & set(nested), (where, nested)
            if not allowed:
                assert not re.search("secret.example|k-123|111-1111|n-1|hunter2", json.dumps(document)), where


async def test_empty_is_empty(world: World) -> None:
    """X9: what is a list in one document is a list in all of its kind, and a count is a number; each tells its type."""
    async with undone(world, world.a, roles=("admin",)) as connection:
        await fill(connection, world)
        kinds: dict[tuple[str, str], set[type]] = {}
        for where, document in await documents(connection, world):
            assert document["__typename"], where
            for each in inner(document):
                for key, value in each.items():
                    kinds.setdefault((str(each.get("__typename")), key), set()).add(type(value))
        lists = {place: types for place, types in kinds.items() if list in types}
        counts = {place: types for place, types in kinds.items() if place[1].endswith("count")}
        assert len(lists) >= 4
        assert len(counts) >= 4
        assert all(types == {list} for types in lists.values()), lists
        assert all(types == {int} for types in counts.values()), counts
