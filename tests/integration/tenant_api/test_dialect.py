"""Reads of the tenant API in PostgREST's words, over real homes of each isolation mode."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from control_plane.api.query import parse_query
from control_plane.pools import lists
from control_plane.pools.listing import Listing, Page
from control_plane.pools.requests import RequestPools
from control_plane.registry.models import Cluster
from tests.support.members import Member, Members
from tests.support.proxy import open_proxy
from tests.support.servers import Server
from tests.support.tenant_calls import TenantCalls, principal, tenant_calls

MODES = ("shared", "schema", "database")
OBJECT = "application/vnd.pgrst.object+json"


class Reader:
    """One tenant with six projects, of which the last two belong to a user."""

    def __init__(self, calls: TenantCalls, member: Member) -> None:
        self.calls = calls
        self.caller = principal(member, member.user_id, "editor")
        self.projects: list[dict[str, Any]] = []
        self.owner = ""

    async def fill(self) -> None:
        created = await self.call("create_user", {"email": "ann@example.com", "name": "Ann"})
        self.owner = created["user"]["id"]
        await self.call("create_user", {"email": "Bob_b@example.com", "name": "Bob"})
        for number, name in enumerate(("a", "b", "c,d", 'e"f', "g", "h")):
            owner = {"owner_id": self.owner} if number > 3 else {}
            self.projects.append((await self.call("create_project", {"name": name, **owner}))["project"])

    async def call(self, function: str, document: dict[str, Any]) -> dict[str, Any]:
        answer = await self.calls.post(self.caller, f"/api/v1/rpc/{function}", document)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def get(self, query: str = "", resource: str = "projects", **headers: str) -> httpx.Response:
        return await self.calls.get(self.caller, f"/api/v1/{resource}{query}", headers=headers)

    async def names(self, query: str) -> str:
        answer = await self.get(query)
        assert answer.status_code == 200, answer.text
        return " ".join(document["name"] for document in answer.json())


@pytest_asyncio.fixture
async def calls(members: Members) -> AsyncIterator[TenantCalls]:
    async with tenant_calls(members) as opened:
        yield opened


@pytest_asyncio.fixture
async def reader(members: Members, calls: TenantCalls) -> Reader:
    found = Reader(calls, await members.add("acme"))
    await found.fill()
    return found


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_asked_for_is_what_comes(members: Members, calls: TenantCalls, mode: str) -> None:
    reader, other = [Reader(calls, await members.add(slug, mode)) for slug in ("acme", "other")]
    await reader.fill()
    await other.fill()  # the same names, of another tenant
    ids = [project["id"] for project in reader.projects]
    for query, names in (
        ("name=eq.a", "a"),
        ('name=eq.e"f', 'e"f'),
        ("name=eq.nobody", ""),
        ('name=in.(a,"c,d","e\\"f")', 'a c,d e"f'),
        ("name=in.()", ""),
        ("name=not.in.(a,b,g,h)", 'c,d e"f'),
        ("name=not.eq.a&name=not.eq.b&name=not.in.(g,h)", 'c,d e"f'),
        (f"id=eq.{ids[1]}", "b"),
        (f"id=in.({ids[1].upper()},{other.projects[0]['id']},{uuid4()})", "b"),
        ("owner_id=is.null", 'a b c,d e"f'),
        ("owner_id=not.is.null", "g h"),
        ("owner_id=is.not_null", "g h"),
        (f"owner_id=eq.{reader.owner}", "g h"),
        (f"owner_id=neq.{reader.owner}", ""),  # null is neither equal nor unequal
        (f"owner_id=in.({other.owner})", ""),
        ("created_at=gt.2001-02-03T04:05:06Z&name=eq.a", "a"),
        ("created_at=lt.2001-02-03", ""),
        ("order=name.desc&limit=2", "h g"),
        ("order=name&offset=1&limit=1", "b"),
        ("order=name.asc.nullsfirst&limit=1&select=*", "a"),
        ("limit=0", ""),
        ("select=name,nothing&limit=1", "a"),
    ):
        assert await reader.names(f"?{quote(query, safe='=&')}") == names, query
    users = await reader.get("?email=like.*@example.com&email=not.ilike.BOB\\_*", "users")
    assert [user["email"] for user in users.json()] == ["ann@example.com"]
    assert len((await reader.get("?email=neq.ann@example.com", "users")).json()) == 1
    counted = await reader.get("?name=in.(a,b)", prefer="count=exact")
    assert counted.headers["content-range"] == "0-1/2"


async def test_fields_are_picked(reader: Reader) -> None:
    answer = await reader.get("?select=name,id,nothing&limit=1")
    assert answer.json() == [{"name": "a", "id": reader.projects[0]["id"]}]
    assert (await reader.get("?select=nothing&limit=1")).json() == [{}]
    hostile = await reader.get(f"?select={quote('id FROM tb_user')}")
    assert (hostile.status_code, hostile.json()["errors"][0]["parameter"]) == (400, "select")


async def test_ranges_and_counts_are_told_as_postgrest_tells_them(reader: Reader) -> None:
    for query, headers, status, told in (
        ("", {}, 200, "0-5/*"),
        ("", {"prefer": "count=exact"}, 200, "0-5/6"),
        ("?limit=2", {"prefer": "count=exact"}, 206, "0-1/6"),
        ("?limit=2&offset=4", {"prefer": "count=planned"}, 206, "4-5/6"),
        ("?offset=6", {"prefer": "count=exact"}, 206, "*/6"),
        ("?offset=6", {}, 200, "*/*"),
        ("?limit=0", {"prefer": "count=exact"}, 206, "*/6"),
        ("?name=eq.nobody", {"prefer": "count=exact"}, 200, "*/0"),
        ("", {"range": "1-2"}, 200, "1-2/*"),
        ("", {"range": "4-", "range-unit": "items", "prefer": "count=exact"}, 206, "4-5/6"),
        ("?owner_id=is.null", {"range": "0-9", "prefer": "count=estimated"}, 200, "0-3/4"),
    ):
        answer = await reader.get(query, **headers)
        assert (answer.status_code, answer.headers["content-range"]) == (status, told), (query, headers)
        assert answer.headers.get("preference-applied") == ("count=exact" if "prefer" in headers else None)
    head = await reader.calls._call(reader.caller, "HEAD", "/api/v1/projects", headers={"prefer": "count=exact"})
    assert (head.content, head.headers["content-range"]) == (b"", "0-5/6")


async def test_a_range_beyond_the_rows_is_a_416(reader: Reader) -> None:
    beyond = await reader.get("?offset=7", prefer="count=exact")
    assert (beyond.status_code, beyond.json()["code"]) == (416, "PGRST103")
    assert (beyond.headers["content-range"], beyond.json()["details"]) == ("*/6", "There are 6 rows.")
    backwards = await reader.get(range="5-2")
    assert (backwards.status_code, backwards.headers["content-range"]) == (416, "*/*")
    assert (await reader.get("?limit=1", range="0-2")).status_code == 400


async def test_one_object_is_one_or_a_406(reader: Reader) -> None:
    one = await reader.get("?name=eq.b", accept=OBJECT)
    assert (one.status_code, one.headers["content-type"], one.json()["name"]) == (200, OBJECT, "b")
    assert (await reader.get("?limit=1&offset=1", accept=f"{OBJECT}, */*")).json()["name"] == "b"
    assert (await reader.get("?name=eq.b&select=name", accept=OBJECT)).json() == {"name": "b"}
    for query, details in (("?name=eq.x", "The result contains 0 rows"), ("", "The result contains several rows")):
        refused = await reader.get(query, accept=OBJECT)
        assert refused.status_code == 406
        assert (refused.json()["code"], refused.json()["details"]) == ("PGRST116", details)


async def test_only_what_is_declared_may_be_named(reader: Reader) -> None:
    # attack 31
    for query, parameter, allowed in (
        ("tenant_id=eq.1", "tenant_id", "owner_id"),
        ("data=eq.1", "data", "name"),
        ("name=like.a*", "name", "eq"),
        ("created_at=eq.2026-01-01", "created_at", "gte"),
        ("order=owner_id", "order", "created_at"),
        ("order=id;select 1", "order", "id"),
        ("or=(id.eq.1)", "or", "select"),
    ):
        answer = await reader.get(f"?{query}")
        (error,) = answer.json()["errors"]
        assert (answer.status_code, answer.json()["code"], error["parameter"]) == (400, "invalid_input", parameter)
        assert allowed in error["allowed"]
    # What looks right and is not, only the database knows.
    for query in ("created_at=gt.2026-02-31", "created_at=gt.2026-01-01T25:00:00"):
        assert (await reader.get(f"?{query}")).status_code == 400


async def test_equal_values_are_on_one_page_each(reader: Reader) -> None:
    for _ in range(4):
        await reader.call("create_project", {"name": "same"})
    for direction in ("asc", "desc"):
        pages = [
            (await reader.get(f"?name=eq.same&order=name.{direction}&limit=1&offset={number}")).json()[0]["id"]
            for number in range(4)
        ]
        assert pages == sorted(pages, reverse=direction == "desc")
        assert len(set(pages)) == 4


async def test_a_profile_is_left_aside(reader: Reader) -> None:
    profiles = {"accept-profile": "public", "content-profile": "tenancy"}
    assert (await reader.get("?name=eq.a", **profiles)).json()[0]["name"] == "a"


def asked_and_counted(members: Members, query: str) -> Listing:
    found = members.template.resource("projects", api_version=1, pattern_version=members.template.latest)
    listing = parse_query(query.encode(), found)
    return listing._replace(shape=listing.shape._replace(counted=True))


@pytest.mark.parametrize("query", ["name=eq.a&order=name", "id=in.()&select=id", "created_at=gt.2026-01-01"])
async def test_a_question_is_an_init_plan_behind_the_gate_and_uses_the_index(
    members: Members, pools: RequestPools, query: str
) -> None:
    # attack 21: also the count hangs on the gate
    member = await members.add("acme")
    listing = asked_and_counted(members, query)
    statement = lists.list_statement(member.home.schema_name, 1, "projects", listing.shape)
    async with pools.connection(member.placement) as connection:
        for mode in ("force_custom_plan", "force_generic_plan"):
            async with connection.transaction():
                await connection.execute(f"SET LOCAL plan_cache_mode = {mode}; SET LOCAL enable_seqscan = off")
                explained = await connection.fetchval(
                    f"EXPLAIN (FORMAT JSON, VERBOSE) {statement}", *member.caller, *lists.list_arguments(listing)
                )
            plan = json.loads(explained)[0]["Plan"]
            assert plan["Node Type"] == "Result"
            assert {child["Parent Relationship"] for child in plan["Plans"]} == {"InitPlan"}
            (output,) = plan["Output"]
            assert output.startswith("CASE WHEN tenancy.set_tenant_context(")
            assert output.endswith(" END")
            column = query.partition("=")[0]
            # Of the type of the column: a comparison of two types is filtered row by row.
            found = [line for line in explained.splitlines() if '"Index Cond"' in line]
            assert any(f"{column} " in line for line in found), explained


async def test_a_question_is_one_round_trip(server: Server, members: Members, pools: RequestPools) -> None:
    member = await members.add("acme")
    listing = asked_and_counted(members, "name=in.(a,b)&created_at=gt.2026-01-01&order=name.desc&select=id")
    async with open_proxy(server) as proxy:
        async with members.databases.registry.begin() as session:
            cluster = await session.get_one(Cluster, members.cluster.id)
            cluster.dsn = members.databases.box.seal(proxy.dsn)
        for attempt in range(2):  # the first one connects and prepares
            proxy.clear()
            async with pools.connection(member.placement) as connection:
                page = await lists.read_list(connection, member.caller, member.home.schema_name, 1, "projects", listing)
            assert page == Page(b"[]", 0, total=0)
            assert attempt == 0 or proxy.sent == ["B", "E", "S"]
        other = listing._replace(values=("2027-01-01", ("c",)))
        proxy.clear()
        async with pools.connection(member.placement) as connection:
            await lists.read_list(connection, member.caller, member.home.schema_name, 1, "projects", other)
        assert proxy.sent == ["B", "E", "S"]  # other values are no other statement
        assert proxy.round_trips == 1
        await pools.aclose()
