"""Functions over HTTP: what their refusals become, and bodies that are none."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.integration.tenant_api.calls import as_, problem
from tests.support.members import Members

HEADERS = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({"name": ""}, 422, "invalid"),
        ({}, 422, "invalid"),
        ({"name": "x", "tenant_id": "x"}, 422, "invalid"),
        ({"name": 5}, 422, "invalid"),
        ({"name": "x", "owner_id": str(uuid4())}, 404, "not_found"),
    ],
)
async def test_an_expected_failure_is_a_mutation_result(
    members: Members, client: httpx.AsyncClient, document: dict[str, Any], status: int, code: str
) -> None:
    member = await members.add("acme")
    answer = await client.post("/api/v1/rpc/create_project", json=document, headers=as_(member))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"success", "code", "message", "data", "errors"}
    assert (body["success"], body["code"]) == (False, code)
    assert (await client.get("/api/v1/projects", headers=as_(member))).json() == []


async def test_a_conflict_is_a_409(members: Members, client: httpx.AsyncClient) -> None:
    member = await members.add("acme")
    user = {"email": "a@example.com", "name": "A"}
    statuses = [
        (await client.post("/api/v1/rpc/create_user", json=user, headers=as_(member))).status_code for _ in range(2)
    ]
    assert statuses == [200, 409]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b'[{"name": "x"}]',
        b'{"name": "x"',
        b'{"name": "x"} {}',
        b'{"name": "\\u0000"}',
        b'{"name": "\xff"}',
        b'{"name": "\x00"}',
        b'{"a":' * 100_000,
        b'{"name": 1e999999}',
        b"\xef\xbb\xbf{}",
        b"{,}",
    ],
    ids=range(14),
)
async def test_a_body_that_is_no_json_object_is_a_400(members: Members, client: httpx.AsyncClient, body: bytes) -> None:
    member = await members.add("acme")
    answer = await client.post("/api/v1/rpc/create_project", content=body, headers={**as_(member), **HEADERS})
    problem(answer, 400, "invalid_input")


async def test_bodies_have_a_type_and_a_size(members: Members, client: httpx.AsyncClient) -> None:
    member = await members.add("acme")
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = {**as_(member), "content-type": content_type}
        answer = await client.post("/api/v1/rpc/create_project", content=b'{"name": "x"}', headers=headers)
        problem(answer, 415, "unsupported_media_type")
    headers = {**as_(member), "content-type": "Application/JSON; charset=utf-8"}
    answer = await client.post("/api/v1/rpc/create_project", content=b' \n{"name": "x"}', headers=headers)
    assert answer.status_code == 200
    large = b'{"name": "' + b"x" * 1_048_576 + b'"}'
    answer = await client.post("/api/v1/rpc/create_project", content=large, headers=headers)
    problem(answer, 413, "payload_too_large")
