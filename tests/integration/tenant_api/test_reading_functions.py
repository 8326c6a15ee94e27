"""Functions that only read, by GET and HEAD, in each isolation mode."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from control_plane.pools import gate
from tests.integration.tenant_api.calls import MODES, Services, as_, problem
from tests.support.members import Member, Members

SUBTREE = "/api/v2/rpc/category_subtree"


@pytest_asyncio.fixture
async def member(members: Members, client: httpx.AsyncClient) -> AsyncIterator[Member]:
    """A tenant with two categories, one below the other."""
    added = await members.add("acme")
    await fill(client, added)
    yield added


async def fill(client: httpx.AsyncClient, member: Member) -> None:
    for document in ({"name": "Electronics"}, {"name": "Garden"}):
        answer = await client.post("/api/v2/rpc/create_category", json=document, headers=as_(member))
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("mode", MODES)
async def test_a_get_answers_what_a_post_does_in_one_statement(
    members: Members, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    member = await members.add("acme", mode)
    await fill(client, member)
    posted = await client.post(SUBTREE, json={"path": "electronics", "levels": 1}, headers=as_(member))
    calls, call_function = [], gate.call_function

    async def watched(*arguments: object, **options: object) -> gate.MutationResult:
        calls.append((arguments[-1], options["read_only"]))
        return await call_function(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(gate, "call_function", watched)
    for version in ("v2", "default"):
        got = await client.get(f"/api/{version}/rpc/category_subtree?path=electronics&levels=1", headers=as_(member))
        assert (got.status_code, got.content) == (200, posted.content)
        assert dict(got.headers) == dict(posted.headers)
    assert calls == [('{"path":"electronics","levels":1}', True)] * 2
    head = await client.head(f"{SUBTREE}?path=electronics&levels=1", headers=as_(member))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == posted.headers["content-length"]


async def test_an_argument_of_the_wrong_form_is_refused_by_the_function(
    member: Member, client: httpx.AsyncClient
) -> None:
    for query in ("path=electronics&levels=all", "path=electronics&levels=1.0", "levels=1", "path=No!"):
        answer = await client.get(f"{SUBTREE}?{query}", headers=as_(member))
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), query


async def test_an_argument_that_is_not_declared_is_refused_before_a_connection(
    member: Member, client: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.request_pools, "connection", None)
    refused = problem(await client.get(f"{SUBTREE}?path=a&depth=eq.1", headers=as_(member)), 400, "invalid_input")
    assert refused["errors"] == [
        {"parameter": "depth", "message": "is no argument of the function", "allowed": ["path", "levels"]}
    ]
    assert refused["hint"] == "Allowed here: path, levels."


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_function_that_writes_is_not_read(member: Member, client: httpx.AsyncClient, method: str) -> None:
    answer = await client.request(method, "/api/v2/rpc/create_category?name=Toys", headers=as_(member))
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert len((await client.get("/api/v2/categories", headers=as_(member))).json()) == 2
    answer = await client.put(SUBTREE, headers=as_(member))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_only_json_is_answered(member: Member, client: httpx.AsyncClient) -> None:
    for accept, status, media in (
        ("*/*", 200, "application/json"),
        ("application/vnd.pgrst.object+json", 200, "application/vnd.pgrst.object+json"),
        ("text/csv", 406, "application/problem+json"),
    ):
        for method, path, body in (("GET", f"{SUBTREE}?path=garden", None), ("POST", SUBTREE, {"path": "garden"})):
            answer = await client.request(method, path, json=body, headers={**as_(member), "accept": accept})
            assert (answer.status_code, answer.headers["content-type"]) == (status, media)
    document = {"name": "Toys"}
    headers = {**as_(member), "accept": "text/csv"}
    problem(await client.post("/api/v2/rpc/create_category", json=document, headers=headers), 406, "PGRST107")
    assert len((await client.get("/api/v2/categories", headers=as_(member))).json()) == 2


async def test_a_tenant_that_is_suspended_reads_nothing(
    members: Members, client: httpx.AsyncClient, member: Member
) -> None:
    await client.get(f"{SUBTREE}?path=garden", headers=as_(member))
    await members.set_state(member, "suspended")
    for path in (f"{SUBTREE}?path=garden", "/api/v2/deprecations"):
        problem(await client.get(path, headers=as_(member)), 403, "tenant_suspended")
