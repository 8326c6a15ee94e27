"""Functions over HTTP: what their refusals become, and calls that run once per Idempotency-Key."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from control_plane.pools import gate
from tests.integration.tenant_api.calls import MODES, as_, problem
from tests.support.members import Member, Members

POST = {"title": "Hello", "content": "World"}


async def join(members: Members, slug: str, mode: str = "shared", **options: Any) -> Member:
    """A tenant whose caller is one of its users."""
    member = await members.add(slug, mode, **options)
    async with members.databases.admin(members.cluster, member.home.database) as admin:
        await admin.execute(
            f'SET ROLE cp_owner; INSERT INTO "{member.home.schema_name}".tb_user (tenant_id, id, email, name)'
            f" VALUES ('{member.id}', '{member.user_id}', 'ada@example.com', 'Ada')"
        )
    return member


async def call(
    client: httpx.AsyncClient, member: Member, function: str, document: dict[str, Any], key: str | None = None
) -> httpx.Response:
    headers = as_(member) | ({"idempotency-key": key} if key is not None else {})
    return await client.post(f"/api/v2/rpc/{function}", json=document, headers=headers)


async def posts(client: httpx.AsyncClient, member: Member) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/api/v2/posts", headers=as_(member))).json()
    return found


@pytest.mark.parametrize("mode", MODES)
async def test_the_same_key_twice_is_one_post(members: Members, client: httpx.AsyncClient, mode: str) -> None:
    """Check 19.4, over HTTP: equal bytes."""
    member = await join(members, "acme", mode)
    first = await call(client, member, "create_post", POST, "one")
    again = await client.post(
        "/api/default/rpc/create_post",
        content=b'{"content" : "World", "title": "Hello"}',
        headers=as_(member) | {"idempotency-key": "one", "content-type": "application/json"},
    )
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert [post["id"] for post in await posts(client, member)] == [first.json()["data"]["post"]["id"]]
    assert (await call(client, member, "create_post", POST, "two")).status_code == 200
    assert (await call(client, member, "create_post", POST)).status_code == 200
    assert len(await posts(client, member)) == 3


async def test_another_body_or_function_is_a_conflict(members: Members, client: httpx.AsyncClient) -> None:
    member = await join(members, "acme")
    await call(client, member, "create_post", POST, "one")
    for function, document in (("create_post", POST | {"title": "Other"}), ("create_user", POST)):
        answer = await call(client, member, function, document, "one")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert len(await posts(client, member)) == 1


async def test_calls_at_the_same_moment_are_one(members: Members, client: httpx.AsyncClient) -> None:
    member = await join(members, "acme")
    answers = await asyncio.gather(*(call(client, member, "create_post", POST, "one") for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(await posts(client, member)) == 1


async def test_a_call_with_a_key_is_repeated_when_its_answer_is_lost(
    members: Members, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key nobody may try again after a lost connection; with one the service does."""
    member = await join(members, "acme")
    original = gate.call_function
    lost: list[str] = []

    async def losing(*arguments: Any, **options: Any) -> gate.MutationResult:
        result = await original(*arguments, **options)
        if not lost:
            lost.append("answer")
            raise asyncpg.ConnectionDoesNotExistError("after the server has done its work")
        return result

    monkeypatch.setattr(gate, "call_function", losing)
    answer = await call(client, member, "create_post", POST, "one")
    assert answer.status_code == 200
    assert lost == ["answer"]
    assert [post["id"] for post in await posts(client, member)] == [answer.json()["data"]["post"]["id"]]


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 201, "caf\xe9", "a\tb"])
async def test_a_key_has_a_form(members: Members, client: httpx.AsyncClient, key: str) -> None:
    member = await join(members, "acme")
    headers = [(b"idempotency-key", key.encode("latin-1")), *((k.encode(), v.encode()) for k, v in as_(member).items())]
    answer = await client.post("/api/v2/rpc/create_post", json=POST, headers=headers)
    body = problem(answer, 400, "invalid_input")
    assert body["errors"][0]["header"] == "Idempotency-Key"
    assert await posts(client, member) == []


async def test_one_key_at_a_time(members: Members, client: httpx.AsyncClient) -> None:
    member = await join(members, "acme")
    headers = [*as_(member).items(), ("idempotency-key", "a"), ("idempotency-key", "b")]
    problem(await client.post("/api/v2/rpc/create_post", json=POST, headers=headers), 400, "invalid_input")


async def test_a_home_that_keeps_no_keys_says_so(members: Members, client: httpx.AsyncClient) -> None:
    """A key that would not be honoured is refused, not ignored."""
    member = await members.add("acme", "schema", version=3)
    answer = await call(client, member, "create_project", {"name": "x"}, "one")
    body = problem(answer, 400, "invalid_input")
    assert "version of the template" in body["message"]
    assert (await client.get("/api/v2/projects", headers=as_(member))).json() == []
    assert (await call(client, member, "create_project", {"name": "x"})).status_code == 200


@pytest.mark.parametrize(
    ("function", "document", "status", "code"),
    [
        ("create_comment", {"post_id": str(uuid4()), "content": "x"}, 404, "not_found"),
        ("create_comment", {"post_id": "abc"}, 422, "invalid"),
        ("update_post", {"id": "{post}", "title": "Mine"}, 403, "forbidden"),
        ("delete_post", {"id": "{post}"}, 403, "forbidden"),
        ("create_post", {"title": "x", "content": "x"}, 403, "forbidden"),
    ],
)
async def test_refusals_are_results_with_a_status(
    members: Members, client: httpx.AsyncClient, function: str, document: dict[str, str], status: int, code: str
) -> None:
    """Requirement 2 of pattern 19: with and without a key, asked by somebody who is no user of the tenant."""
    member = await join(members, "acme")
    post = (await call(client, member, "create_post", POST)).json()["data"]["post"]["id"]
    if function != "create_comment":
        member.user_id = UUID(int=7)
    filled = {name: value.format(post=post) for name, value in document.items()}
    for key in (None, "one", "one"):
        answer = await call(client, member, function, filled, key)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/json"
        assert "tb_" not in answer.text
    assert len(await posts(client, member)) == 1


async def test_posts_comments_and_numbers_are_served(members: Members, client: httpx.AsyncClient) -> None:
    member = await join(members, "acme")
    post = (await call(client, member, "create_post", POST)).json()["data"]["post"]
    comment = (await call(client, member, "create_comment", {"post_id": post["id"], "content": "Yes"})).json()
    listed = (await client.get("/api/v2/comments", headers=as_(member))).json()
    assert listed == [comment["data"]["comment"]]
    stats = (await client.get(f"/api/v2/post_stats/{post['id']}", headers=as_(member))).json()
    assert (stats["comment_count"], stats["version"], stats["latest_comments"][0]["content"]) == (1, 2, "Yes")
    deleted = await call(client, member, "delete_post", {"id": post["id"]})
    assert deleted.json()["data"] == {"id": post["id"]}
    answer = await client.get(f"/api/v2/post_stats/{post['id']}", headers=as_(member))
    problem(answer, 404, "not_found")
    assert (await client.get("/api/v1/posts", headers=as_(member))).status_code == 404
    assert json.loads((await client.get("/api/v2/comments", headers=as_(member))).content) == []
