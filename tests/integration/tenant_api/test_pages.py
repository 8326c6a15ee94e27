"""Pages by cursor on lists: `Link` beside an array, and the page object."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import pytest_asyncio

from control_plane.pools import lists
from tests.integration.tenant_api.rows import OBJECT, PAGE, Reader, execute, numbers, put_projects, take_projects
from tests.support.members import Member, Members
from tests.support.mutation import mutated
from tests.support.tenant_calls import TenantCalls, tenant_calls

MODES = ("shared", "schema", "database")
NINE = list(range(1, 10))


@pytest_asyncio.fixture
async def calls(members: Members) -> AsyncIterator[TenantCalls]:
    async with tenant_calls(members) as opened:
        yield opened


@pytest_asyncio.fixture
async def member(members: Members) -> Member:
    found = await members.add("acme")
    await put_projects(members, found, 9)
    return found


@pytest.fixture
def reader(calls: TenantCalls, member: Member) -> Reader:
    return Reader(calls, member)


def link(answer: httpx.Response, relation: str) -> str | None:
    """The address that the answer links to, as a client finds it."""
    found = answer.links.get(relation)
    return None if found is None else urljoin(str(answer.url), found["url"])


async def walk(reader: Reader, address: str | None, relation: str = "next") -> list[list[int]]:
    pages = []
    while address is not None:
        answer = await reader.get(address)
        assert answer.status_code == 200, answer.text
        pages.append(numbers(answer.json()))
        assert len(pages) < 50, "the pages have no end"
        address = link(answer, relation)
    return pages


def refused(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "invalid_input"
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("mode", MODES)
async def test_links_lead_through_a_list_and_back(members: Members, calls: TenantCalls, mode: str) -> None:
    member, other = [await members.add(slug, mode, version=1) for slug in ("acme", "other")]
    await put_projects(members, member, 9)
    await put_projects(members, other, 4)
    reader = Reader(calls, member)
    for order, expected in (
        ("", NINE),
        ("order=name&", NINE),
        ("order=name.desc&", NINE[::-1]),
        ("order=id&", NINE),
        ("order=created_at.desc.nullsfirst&", NINE[::-1]),
    ):
        pages = await walk(reader, f"v1/projects?{order}limit=2")
        assert [each for page in pages for each in page] == expected, order
        assert [len(page) for page in pages] == [2, 2, 2, 2, 1]
    first = await reader.get("v1/projects?order=name&limit=4&select=id,name&name=not.eq.group%201")
    assert link(first, "prev") is None
    second = await reader.get(link(first, "next") or "")
    assert numbers(second.json()) == [8, 9]
    assert link(second, "next") is None
    assert set(second.json()[0]) == {"id", "name"}  # everything else of the question is kept
    assert await walk(reader, link(second, "prev"), "prev") == [[1, 2, 3, 7]]

    theirs = await Reader(calls, other).get("v1/projects?limit=2")
    mixed = await reader.get(link(theirs, "next") or "")
    assert refused(mixed)["errors"][0]["parameter"] == "cursor"


async def test_the_way_back_shows_the_same_pages(reader: Reader) -> None:
    for order in ("name", "name.desc"):
        pages, address = [], "v1/projects?limit=2&order=" + order
        while True:
            last = await reader.get(address)
            pages.append(numbers(last.json()))
            if (following := link(last, "next")) is None:
                break
            address = following
        assert len(pages) == 5
        back = await walk(reader, link(last, "prev"), "prev")
        assert back == pages[-2::-1]


async def test_the_page_object_is_what_read_page_answers(reader: Reader) -> None:
    """The same pages, the same flags; only the cursors are of another list."""
    sides = [(False, True), (True, True), (True, True), (True, True), (True, False)]
    cursor = ""
    for has_prev, has_next in sides:
        answer = await reader.get(f"v2/projects?order=name&limit=2{cursor}", accept=PAGE)
        page = answer.json()
        called = await reader.calls.post(
            reader.caller, "/api/v2/rpc/read_page", {"resource": "projects", "sort": "name", "limit": 9}
        )
        assert page["items"] == [each for each in called.json()["data"]["items"] if each in page["items"]]
        assert set(page) == {"items", "page"}
        assert (page["page"]["has_prev"], page["page"]["has_next"]) == (has_prev, has_next)
        assert (page["page"]["prev"] is not None, page["page"]["next"] is not None) == (has_prev, has_next)
        assert (answer.headers["content-type"], answer.headers.get("link")) == (PAGE, None)
        cursor = f"&cursor={page['page']['next']}"
    of_read_page = await reader.calls.post(
        reader.caller, "/api/v2/rpc/read_page", {"resource": "projects", "sort": "name", "limit": 2}
    )
    refused(await reader.get(f"v2/projects?order=name&cursor={of_read_page.json()['data']['page']['next']}"))
    empty = await reader.get("v2/projects?name=eq.nobody", accept=PAGE)
    assert empty.json() == {
        "items": [], "page": {"next": None, "prev": None, "has_next": False, "has_prev": False}
    }  # fmt: skip


async def test_a_cursor_is_good_for_one_question_only(reader: Reader) -> None:
    # attack 31
    query = "order=name&name=in.(group%200,group%201)&limit=2"
    answer = await reader.get(f"v1/projects?{query}")
    cursor = httpx.URL(link(answer, "next") or "").params["cursor"]
    assert numbers((await reader.get(f"v1/projects?{query}&cursor={cursor}")).json()) == [3, 4]
    other_limit = await reader.get(f"v1/projects?{query.replace('limit=2', 'limit=3')}&cursor={cursor}")
    assert numbers(other_limit.json()) == [3, 4, 5]
    for other in (
        query.replace("order=name", "order=name.desc"),
        query.replace("order=name", "order=created_at"),
        query.replace("in.(", "not.in.("),
        query.replace("group%201", "group%202"),
        query.replace("&name=in.(group%200,group%201)", ""),
    ):
        refused(await reader.get(f"v1/projects?{other}&cursor={cursor}"))
    refused(await reader.get(f"v2/projects?{query}&cursor={cursor}"))
    flipped = f"{cursor[:9]}{'A' if cursor[9] == 'Z' else 'Z'}{cursor[10:]}"
    for changed in (f"p{cursor[1:]}", f"N{cursor[1:]}", cursor[:-1], f"{cursor}A", flipped, "nA"):
        body = refused(await reader.get(f"v1/projects?{query}&cursor={changed}"))
        assert (body["errors"][0]["parameter"], cursor in str(body)) == ("cursor", False)


async def test_a_wrong_cursor_is_refused_where_there_are_no_rows_too(
    members: Members, calls: TenantCalls, member: Member
) -> None:
    other = Reader(calls, await members.add("other"))
    await execute(members, member, f'ANALYZE "{member.home.schema_name}".tb_project')
    for accept in ("*/*", PAGE):  # the table is small enough to be read whole, and no row of it is the other's
        for cursor in ("nAAAA", "pAAAA"):
            refused(await other.get(f"v1/projects?cursor={cursor}", accept=accept))


async def test_a_cursor_that_is_not_opened_is_noticed(members: Members, calls: TenantCalls, member: Member) -> None:
    """Attack 31: `a cursor is opened only where rows are compared with it`."""
    lists.list_statement.cache_clear()
    with (
        mutated(lists._Builder._opened, "self.shape.way is None", "True"),
        mutated(lists._Builder._common, "{behind} AS behind", "false AS behind"),
        pytest.raises(AssertionError),
    ):
        await test_a_wrong_cursor_is_refused_where_there_are_no_rows_too(members, calls, member)
    lists.list_statement.cache_clear()


async def test_a_cursor_for_any_question_is_noticed(reader: Reader) -> None:
    """Attack 31: `a cursor is good for any question`."""
    lists.list_statement.cache_clear()
    for bound, unbound in (
        ("*self.values", "*()"),
        ("for condition in self.shape.conditions]", "for condition in ()]"),
        ("for sort in self.shape.order]", "for sort in ()]"),
        ("{self.resource}?", "?"),
        (", way.letter)", ', "")'),
    ):
        with mutated(lists._Builder._scope, bound, unbound), pytest.raises(AssertionError):
            await test_a_cursor_is_good_for_one_question_only(reader)
        lists.list_statement.cache_clear()


async def test_rows_that_come_and_go_move_no_other(members: Members, member: Member, reader: Reader) -> None:
    first = await reader.get("v1/projects?order=name&limit=4")
    await put_projects(members, member, 12, first=10)
    await take_projects(members, member, f"id IN ('{numbered_list(1, 4, 6)}')")  # 4 is the row of the cursor
    pages = await walk(reader, link(first, "next"))
    assert pages == [[5, 7, 8, 9], [10, 11, 12]]
    second = await reader.get(link(first, "next") or "")
    assert await walk(reader, link(second, "prev"), "prev") == [[2, 3]]


def numbered_list(*ids: int) -> str:
    return "','".join(f"00000000-0000-0000-0000-{number:012}" for number in ids)


@pytest.mark.parametrize("accept", ["application/json", PAGE])
async def test_a_page_that_lost_all_its_rows_leads_back(
    members: Members, member: Member, reader: Reader, accept: str
) -> None:
    def side(answer: httpx.Response, name: str) -> str | None:
        if accept != PAGE:
            return link(answer, name)
        cursor = answer.json()["page"][name]
        return None if cursor is None else f"v1/projects?order=name&limit=4&cursor={cursor}"

    def shown(answer: httpx.Response) -> list[int]:
        return numbers(answer.json()["items"] if accept == PAGE else answer.json())

    first = await reader.get("v1/projects?order=name&limit=4", accept=accept)
    await take_projects(members, member, f"id > '{numbered_list(4)}'")
    empty = await reader.get(side(first, "next") or "", accept=accept)
    assert (shown(empty), side(empty, "next")) == ([], None)
    back = await reader.get(side(empty, "prev") or "", accept=accept)
    assert shown(back) == [1, 2, 3, 4]  # with the row at which the way here began
    assert (side(back, "prev"), side(back, "next")) == (None, None)
    await take_projects(members, member, "true")
    gone = await reader.get(side(empty, "prev") or "", accept=accept)
    assert (shown(gone), side(gone, "prev"), side(gone, "next")) == ([], None, None)
    await put_projects(members, member, 7, first=7)
    forth = await reader.get(side(empty, "prev") or "", accept=accept)
    assert shown(forth) == []
    assert shown(await reader.get(side(forth, "next") or "", accept=accept)) == [7]


async def test_where_there_are_no_cursors_it_is_said(reader: Reader) -> None:
    for query in ("order=name,created_at.desc", "order=name.nullsfirst", "order=name.desc.nullslast"):
        answer = await reader.get(f"v1/projects?limit=2&{query}")
        assert (answer.status_code, answer.headers.get("link")) == (200, None)
        body = refused(await reader.get(f"v1/projects?limit=2&{query}", accept=PAGE))
        assert body["hint"].startswith("Such as order=name")
    for query, headers in (("limit=2&offset=0", {}), ("", {"range": "0-1"}), ("limit=0", {}), ("limit=9", {})):
        assert "link" not in (await reader.get(f"v1/projects?{query}", **headers)).headers
    refused(await reader.get("v1/projects?cursor=nAAAA", range="0-1"))
    refused(await reader.get("v1/projects?cursor=nAAAA", accept=OBJECT))
    refused(await reader.get("v1/projects", range="0-1", accept=PAGE))


async def test_counts_and_heads_of_pages(reader: Reader) -> None:
    first = await reader.get("v1/projects?order=name&limit=4")
    address = link(first, "next") or ""
    counted = await reader.get(address, prefer="count=exact")
    assert (counted.status_code, counted.headers["content-range"]) == (206, "*/9")
    assert (await reader.get(address)).headers["content-range"] == "*/*"
    counted = await reader.get("v1/projects?limit=4", accept=PAGE, prefer="count=exact")
    assert (counted.status_code, counted.headers["content-range"]) == (206, "0-3/9")
    head = await reader.head("v1/projects?limit=4")
    assert (head.content, "next" in head.links) == (b"", True)


async def test_an_address_stays_an_address_in_a_link(members: Members, member: Member, reader: Reader) -> None:
    names = ["a>b", 'a"b', "a,b;c", "ä€", "%3E", "c d", "e&f", "\\"]
    values = ",".join(f"('{member.id}', $n${name}$n$)" for name in names for _ in range(2))
    await execute(
        members, member, f'INSERT INTO "{member.home.schema_name}".tb_project (tenant_id, name) VALUES {values}'
    )
    for name in names:
        url = httpx.URL("http://api/api/v1/projects", params={"name": f"eq.{name}", "limit": "1", "order": "name"})
        raw = str(url).replace("%3E", ">").replace("%22", '"') if name in ('a"b', "a>b") else str(url)
        first = await reader.get(raw)
        second = await reader.get(link(first, "next") or "")
        assert [each["name"] for each in (*first.json(), *second.json())] == [name, name], name
