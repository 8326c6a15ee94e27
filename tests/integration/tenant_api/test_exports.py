"""Exports: all rows of a list as lines, in batches, no faster than they are taken."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.types import Message

from control_plane.api import streams
from control_plane.api.streams import CutOff
from control_plane.cli.server import Server
from control_plane.identity.principal import Principal
from control_plane.pools import lists
from control_plane.pools.requests import RequestPools
from tests.integration.tenant_api.rows import LINES, Reader, numbers, put_projects
from tests.support.members import Member, Members
from tests.support.mutation import mutated
from tests.support.tenant_calls import TenantCalls, tenant_calls

MODES = ("shared", "schema", "database")
BATCH = 1000  # max_limit of projects


@pytest_asyncio.fixture
async def calls(members: Members) -> AsyncIterator[TenantCalls]:
    async with tenant_calls(members) as opened:
        yield opened


@pytest_asyncio.fixture
async def member(members: Members) -> Member:
    found = await members.add("acme")
    await put_projects(members, found, 3 * BATCH + 500)
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each statement."""
    seen: list[int] = []
    original = lists.read_list

    async def counting(*arguments: Any, **options: Any) -> Any:
        page = await original(*arguments, **options)
        seen.append(page.rows)
        return page

    monkeypatch.setattr(lists, "read_list", counting)
    return seen


def documents(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert not answer.text or answer.text.endswith("}\n")
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("mode", MODES)
async def test_an_export_is_every_row_once_and_in_order(
    members: Members, calls: TenantCalls, reads: list[int], mode: str
) -> None:
    member, other = [await members.add(slug, mode, version=1) for slug in ("acme", "other")]
    await put_projects(members, member, 2 * BATCH + 300)
    await put_projects(members, other, 1)
    reader = Reader(calls, member)
    everything = await reader.get("v1/projects", accept=LINES)
    assert numbers(documents(everything)) == list(range(1, 2 * BATCH + 301))
    assert reads == [BATCH, BATCH, 300]
    assert everything.headers["content-type"] == LINES
    assert everything.headers["cache-control"] == "private, no-store"
    assert not {"content-length", "content-range", "etag", "link"} & everything.headers.keys()

    downwards = await reader.get("v1/projects?order=name.desc&limit=2100&select=id", accept=LINES)
    found = documents(downwards)
    assert len(found) == 2100
    assert set(found[0]) == {"id"}
    listed = sorted(range(1, 2 * BATCH + 301), key=lambda n: (f"group {(n - 1) // 3}", n), reverse=True)
    assert numbers(found) == listed[:2100]


async def test_what_is_filtered_is_what_is_exported(calls: TenantCalls, member: Member, reads: list[int]) -> None:
    reader = Reader(calls, member)
    some = await reader.get("v1/projects?name=in.(group%201,group%207)&order=id", accept=LINES)
    assert numbers(documents(some)) == [4, 5, 6, 22, 23, 24]
    assert reads == [6]
    for query, count in (("limit=0", 0), ("limit=1", 1), (f"limit={BATCH}", BATCH), ("name=eq.nobody", 0)):
        assert len(documents(await reader.get(f"v1/projects?{query}", accept=LINES))) == count
    reads.clear()
    head = await reader.head("v1/projects", accept=LINES)
    assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", LINES)
    assert len(reads) == 1


async def test_what_an_export_cannot_do_is_refused_with_a_status(calls: TenantCalls, member: Member) -> None:
    reader = Reader(calls, member)
    for query, headers in (
        ("order=name,created_at.desc", {}),
        ("order=name.nullsfirst", {}),
        ("offset=5", {}),
        ("cursor=nAAAA", {}),
        ("", {"range": "0-5"}),
        ("secret=eq.1", {}),
        ("created_at=gt.2026-02-31", {}),
    ):
        answer = await reader.get(f"v1/projects?{query}", accept=LINES, **headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input"), query
    assert (await reader.get("v1/nothing", accept=LINES)).status_code == 404


class Client:
    """Takes the parts of an export by hand: `take` is awaited for each of them."""

    def __init__(self, calls: TenantCalls, caller: Principal, take: Callable[[int], Awaitable[None]]) -> None:
        self.calls = calls
        self.caller = caller
        self.take = take
        self.parts: list[bytes] = []
        self.complete = False
        self.left = asyncio.Event()

    async def run(self, path: str = "/api/v1/projects") -> None:
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"accept", LINES.encode())], "state": {"principal": self.caller, "identity_error": None},
            "root_path": "", "scheme": "http", "server": ("api", 80), "http_version": "1.1",
        }  # fmt: skip
        await self.calls.app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            if message.get("body"):
                await self.take(len(self.parts))
                self.parts.append(message["body"])
            self.complete = not message.get("more_body", False)


async def test_one_batch_is_held_and_no_connection(calls: TenantCalls, member: Member, reads: list[int]) -> None:
    """However slow the client is: what it has not taken is not read."""
    lent, held = 0, []
    borrow, give_back = RequestPools.take, RequestPools.put_back

    async def take(taken: int) -> None:
        for _ in range(5):  # whoever would read ahead has the time to
            await asyncio.sleep(0.01)
        held.append((sum(reads) - taken * BATCH, lent))

    def taking(self: RequestPools, *arguments: Any) -> Any:
        nonlocal lent
        lent += 1
        return borrow(self, *arguments)

    def giving(self: RequestPools, *arguments: Any) -> None:
        nonlocal lent
        lent -= 1
        give_back(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RequestPools, "take", taking)
        patch.setattr(RequestPools, "put_back", giving)
        client = Client(calls, Reader(calls, member).caller, take)
        await client.run()
    assert client.complete
    assert held == [(BATCH, 0)] * 3 + [(500, 0)]


async def outlive(calls: TenantCalls, member: Member) -> Client:
    """A client that takes the second part when its token has expired."""
    caller = replace(Reader(calls, member).caller, expires_at=time.time() + 0.5)

    async def take(taken: int) -> None:
        while taken and time.time() < caller.expires_at + 0.1:
            await asyncio.sleep(0.01)

    client = Client(calls, caller, take)
    with pytest.raises(CutOff, match="invalid_token"):
        await client.run()
    return client


async def test_an_export_ends_with_its_token(
    calls: TenantCalls, member: Member, caplog: pytest.LogCaptureFixture
) -> None:
    # attack 45
    client = await outlive(calls, member)
    assert len(client.parts) == 1
    assert not client.complete
    (record,) = [each for each in caplog.records if each.name == streams.__name__]
    assert record.levelno == logging.WARNING
    assert record.message == f"/api/v1/projects of tenant {member.id} was cut off: invalid_token"


async def test_an_export_that_outlives_its_token_is_noticed(calls: TenantCalls, member: Member) -> None:
    """Attack 45: `a stream has no end of its own`."""
    with (
        mutated(streams.send_stream, "max(0.0, principal.expires_at - time.time())", "None"),
        pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"),
    ):
        await outlive(calls, member)


@pytest.mark.parametrize(("state", "code"), [("suspended", "tenant_suspended"), ("deleting", "tenant_not_found")])
async def test_a_tenant_that_is_taken_out_of_service_cuts_an_export_off(
    members: Members, calls: TenantCalls, member: Member, caplog: pytest.LogCaptureFixture, state: str, code: str
) -> None:
    # attack 44
    async def take(taken: int) -> None:
        if taken == 1:
            await members.set_state(member, state)

    client = Client(calls, Reader(calls, member).caller, take)
    with pytest.raises(CutOff, match=code):
        await client.run()
    assert (len(client.parts), client.complete) == (2, False)
    assert f"was cut off: {code}" in caplog.text


async def test_a_tenant_that_moves_goes_on_where_it_is(members: Members, calls: TenantCalls, member: Member) -> None:
    async def take(taken: int) -> None:
        if taken == 1:
            await members.set_state(member, "active", epoch=2)
            await members.record(member, epoch=2)

    client = Client(calls, Reader(calls, member).caller, take)
    await client.run()
    assert client.complete
    assert b"".join(client.parts).count(b"\n") == 3 * BATCH + 500


async def test_a_client_that_leaves_ends_the_reading(calls: TenantCalls, member: Member, reads: list[int]) -> None:
    async def take(taken: int) -> None:
        if taken == 1:
            client.left.set()
            await asyncio.sleep(0)

    client = Client(calls, Reader(calls, member).caller, take)
    await client.run()
    assert not client.complete
    assert len(client.parts) == 2
    assert len(reads) <= 3  # at most the one that was on its way


async def test_an_answer_that_is_cut_off_is_a_failure_for_the_client(
    members: Members, calls: TenantCalls, member: Member
) -> None:
    """With the server of `cp serve`: the body in chunks has no end."""
    caller = Reader(calls, member).caller
    sent = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            nonlocal sent
            await send(message)
            sent += message["type"] == "http.response.body"
            if sent == 2 and broken:
                await members.set_state(member, "suspended")

        scope["state"] = {"principal": caller, "identity_error": None}
        await calls.app(scope, receive, sending)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(application)
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/projects"
        try:
            async with httpx.AsyncClient(headers={"accept": LINES}) as client:
                broken = False
                assert (await client.get(url)).text.count("\n") == 3 * BATCH + 500
                broken, sent = True, 0
                with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                    await client.get(url)
        finally:
            server.should_exit = True
            await serving
