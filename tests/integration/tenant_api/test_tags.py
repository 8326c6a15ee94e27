"""ETags of documents with a version, and answers that say no more than that nothing has changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from control_plane.api.query import plain_listing
from control_plane.pools import gate, lists
from control_plane.pools.listing import Known, Listing
from control_plane.pools.requests import RequestPools
from tests.integration.tenant_api.rows import LINES, OBJECT, PAGE, Reader, execute
from tests.support.members import Member, Members
from tests.support.mutation import mutated
from tests.support.tenant_calls import TenantCalls, tenant_calls

MODES = ("shared", "schema", "database")
STATS = "v2/post_stats"


@pytest_asyncio.fixture
async def calls(members: Members) -> AsyncIterator[TenantCalls]:
    async with tenant_calls(members) as opened:
        yield opened


class Author(Reader):
    """A user of the tenant who writes posts."""

    async def call(self, function: str, document: dict[str, Any]) -> dict[str, Any]:
        answer = await self.calls.post(self.caller, f"/api/v2/rpc/{function}", document)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def post(self, title: str) -> str:
        created: str = (await self.call("create_post", {"title": title, "content": "…"}))["post"]["id"]
        return created

    async def tag(self, path: str = STATS, **headers: str) -> str:
        answer = await self.get(path, **headers)
        assert answer.status_code in (200, 206), answer.text
        assert answer.headers["cache-control"] == "private, no-cache"
        assert {"Authorization", "Accept", "Prefer", "Range"} <= set(answer.headers["vary"].split(", "))
        tag: str = answer.headers["etag"]
        assert tag.startswith('"')  # a strong one
        return tag


async def author(calls: TenantCalls, member: Member) -> Author:
    created = await Author(calls, member).call("create_user", {"email": "ann@example.com", "name": "Ann"})
    return Author(calls, member, user_id=UUID(created["user"]["id"]))


def unchanged(answer: httpx.Response, tag: str) -> None:
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == tag
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["vary"]
    assert not {"content-type", "content-length", "content-range", "link"} & answer.headers.keys()


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_caller_has_is_not_sent_again(members: Members, calls: TenantCalls, mode: str) -> None:
    ann = await author(calls, await members.add("acme", mode))
    posts = [await ann.post(f"post {number}") for number in range(3)]
    one = f"{STATS}/{posts[0]}"
    tags = {path: await ann.tag(path) for path in (one, STATS, f"{STATS}?limit=1", f"{STATS}?id=eq.{posts[1]}")}
    assert len(set(tags.values())) == len(tags)
    for path, tag in tags.items():
        unchanged(await ann.get(path, if_none_match=tag), tag)
        unchanged(await ann.get(path, if_none_match=f'"x", W/{tag}'), tag)
        unchanged(await ann.get(path, if_none_match="*"), tag)
        unchanged(await ann.head(path, **{"if-none-match": tag}), tag)
        for other in ('"x"', tag.upper(), tag.strip('"'), '"*"', "", next(iter(set(tags.values()) - {tag}))):
            assert (await ann.get(path, if_none_match=other)).status_code == 200, other

    await ann.call("create_comment", {"post_id": posts[0], "content": "!"})
    for path, changed in zip(tags, (True, True, None, False), strict=True):  # the first by id is any of them
        answer = await ann.get(path, if_none_match=tags[path])
        if changed is not None:
            assert (answer.status_code == 200, answer.headers["etag"] != tags[path]) == (changed, changed), path
    changed_tag = await ann.tag()
    await ann.call("delete_post", {"id": posts[2]})
    deleted_tag = await ann.tag()
    posts[2] = await ann.post("post 2")
    assert len({tags[STATS], changed_tag, deleted_tag, await ann.tag()}) == 4
    assert (await ann.get(f"{STATS}/{uuid4()}", if_none_match="*")).status_code == 404


async def test_a_tag_covers_all_that_the_answer_says(members: Members, calls: TenantCalls) -> None:
    ann = await author(calls, await members.add("acme"))
    for number in range(4):
        await ann.post(f"post {number}")
    first = await ann.get(f"{STATS}?limit=2")
    following = STATS + str(first.links["next"]["url"])
    back = STATS + str((await ann.get(following)).links["prev"]["url"])
    assert (await ann.get(back)).json() == first.json()
    for path, headers in (
        (f"{STATS}?limit=2", {}),  # a link appears with a row behind
        (f"{STATS}?limit=2", {"accept": PAGE}),
        (f"{STATS}?limit=2", {"prefer": "count=exact"}),
        (f"{STATS}?limit=2&offset=0", {"prefer": "count=exact"}),
        (following, {}),
        (following, {"accept": PAGE}),
        (back, {}),
        (back, {"accept": PAGE}),
    ):
        answer = await ann.get(path, **headers)
        unchanged(await ann.get(path, if_none_match=answer.headers["etag"], **headers), answer.headers["etag"])
    asked = [
        (f"{STATS}?limit=2", {}),
        (f"{STATS}?limit=2", {"accept": PAGE}),
        (f"{STATS}?limit=2", {"prefer": "count=exact"}),
        (f"{STATS}?limit=3", {}),
        (f"{STATS}?limit=2&select=id", {}),
        (f"{STATS}?limit=2&order=id.desc", {}),
        (f"{STATS}?limit=2&offset=0", {}),
        (STATS, {"range": "0-1"}),
        (f"{STATS}?limit=1", {}),
        (f"{STATS}?limit=1", {"accept": OBJECT}),
        (following, {}),
        ("default/post_stats?limit=2", {}),
    ]
    tags = [await ann.tag(path, **headers) for path, headers in asked]
    # `default` is version 2 at another address: a client keeps its answers apart by the address.
    assert len(set(tags)) == len(tags) - 1
    last = await ann.tag(f"{STATS}?limit=4", prefer="count=exact")
    body = (await ann.get(f"{STATS}?limit=4")).content
    highest = await ann.get(f"{STATS}?order=id.desc&limit=1&select=id")
    while (await ann.get(f"{STATS}?limit=4")).content == body:
        await ann.post("one more")
    assert highest.status_code == 200
    assert (await ann.get(f"{STATS}?limit=4", prefer="count=exact", if_none_match=last)).status_code == 206


async def test_other_forms_are_checked_before_the_tag(members: Members, calls: TenantCalls) -> None:
    ann = await author(calls, await members.add("acme"))
    none = await ann.get(STATS, accept=OBJECT, if_none_match="*")
    assert (none.status_code, none.json()["code"]) == (406, "PGRST116")
    beyond = await ann.get(f"{STATS}?offset=5", prefer="count=exact", if_none_match="*")
    assert beyond.status_code == 416
    lines = await ann.get(STATS, accept=LINES, if_none_match="*")
    assert (lines.status_code, lines.headers["cache-control"], "etag" in lines.headers) == (
        200, "private, no-store", False
    )  # fmt: skip


async def test_what_has_no_version_has_no_tag(members: Members, calls: TenantCalls) -> None:
    reader = Reader(calls, await members.add("acme"))
    answer = await reader.get("v1/projects", if_none_match="*")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "private, no-store")
    assert "etag" not in answer.headers


async def empty_lists(calls: TenantCalls, acme: Member, other: Member) -> list[str]:
    """The tags of one address for all kinds of callers, who all see nothing."""
    user, another = UUID(int=1), UUID(int=2)
    callers = [
        Author(calls, acme, user_id=user),
        Author(calls, acme, "admin", user_id=user),
        Author(calls, acme, "editor", user_id=user),
        Author(calls, acme, user_id=another),
        Author(calls, other, user_id=user),
    ]
    return [await each.tag() for each in callers]


async def test_a_tag_is_for_one_caller(members: Members, calls: TenantCalls) -> None:
    # attack 39
    acme, other = await members.add("acme"), await members.add("other")
    tags = await empty_lists(calls, acme, other)
    assert len(set(tags)) == len(tags)
    assert await empty_lists(calls, acme, other) == tags
    # whoever is on a list of members has the roles of the list
    text = "INSERT INTO tenancy.members (tenant_id, user_id, roles) VALUES ($1, $2, $3)"
    listed = Author(calls, acme, "editor")
    async with members.databases.admin(members.cluster, acme.home.database) as admin:
        await admin.execute("UPDATE tenancy.tenants SET membership = 'listed' WHERE id = $1", acme.id)
        await admin.execute(text, acme.id, acme.user_id, ["editor"])
        before = await listed.tag()
        await admin.execute("UPDATE tenancy.members SET roles = '{admin}' WHERE user_id = $1", acme.user_id)
    assert await listed.tag() != before
    moved = await listed.tag()
    await members.set_state(acme, "active", epoch=2)
    await members.record(acme, epoch=2)
    assert await listed.tag() != moved  # a database that was restored may tell the same versions of other documents


@pytest.mark.parametrize(
    "left_out", ["tenancy.current_tenant_id(), ", "tenancy.current_user_id(), ", ", tenancy.current_roles()"]
)
async def test_a_tag_for_several_callers_is_noticed(
    members: Members, calls: TenantCalls, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    """Attack 39: `a tag does not know who asks`."""
    assert left_out in gate._WHO
    monkeypatch.setattr(gate, "_WHO", gate._WHO.replace(left_out, ""))
    lists.list_statement.cache_clear()
    acme, other = await members.add("acme"), await members.add("other")
    tags = await empty_lists(calls, acme, other)
    assert len(set(tags)) < len(tags)
    lists.list_statement.cache_clear()


async def plan_of(connection: asyncpg.Connection, member: Member, listing: Listing, known: Known) -> Any:
    statement = lists.list_statement(member.home.schema_name, 2, "post_stats", listing.shape)
    explained = await connection.fetchval(
        f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING off) {statement}",
        *member.caller,
        *lists.list_arguments(listing, known),
    )
    return json.loads(explained)[0]["Plan"]


def reads_of(plan: dict[str, Any], table: str) -> list[int]:
    """How often each scan of the table was run."""
    found = [int(plan["Actual Loops"])] if plan.get("Relation Name") == table else []
    return found + [loops for child in plan.get("Plans", ()) for loops in reads_of(child, table)]


async def test_documents_that_the_caller_has_are_not_read(
    members: Members, calls: TenantCalls, pools: RequestPools
) -> None:
    member = await members.add("acme")
    ann = await author(calls, member)
    await ann.post("post")
    resource = members.template.resource("post_stats", api_version=2, pattern_version=members.template.latest)
    listing = plain_listing(resource)
    async with pools.connection(member.placement) as connection:
        unknown = await plan_of(connection, member, listing, Known("q", ("x",)))
        page = await lists.read_list(
            connection, member.caller, member.home.schema_name, 2, "post_stats", listing, Known("q")
        )
        assert page.tag is not None
        known = await plan_of(connection, member, listing, Known("q", (page.tag,)))
    assert reads_of(unknown, "tv_post_stats").count(1) == 2
    assert sorted(reads_of(known, "tv_post_stats")) == [0, 1]


async def test_a_document_that_is_sent_although_it_is_known_is_noticed(members: Members, calls: TenantCalls) -> None:
    """`a known document is sent again`"""
    lists.list_statement.cache_clear()
    gate.one_statement.cache_clear()
    with mutated(gate.fresh_tag, "({tag} = ANY", "(false AND {tag} = ANY"), pytest.raises(AssertionError):
        await test_what_a_caller_has_is_not_sent_again(members, calls, "shared")
    lists.list_statement.cache_clear()
    gate.one_statement.cache_clear()


async def test_a_tag_is_made_of_keys_and_versions(members: Members, calls: TenantCalls) -> None:
    member = await members.add("acme", "schema")
    ann = await author(calls, member)
    await ann.post("post")
    tag = await ann.tag()
    await execute(members, member, f'UPDATE "{member.home.schema_name}".tv_post_stats SET synced_at = now()')
    unchanged(await ann.get(STATS, if_none_match=tag), tag)
