"""The tenant API over real homes: what callers get, and what they cannot get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.api.resources import routes
from control_plane.errors import InvalidToken
from control_plane.identity.principal import Principal
from control_plane.pools import gate
from control_plane.pools.deprecated_calls import DeprecatedCalls
from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools
from control_plane.problems import install_problems
from control_plane.templates import Templates
from tests.support.members import Member, Members

MODES = ("shared", "schema", "database")
HEADERS = {"content-type": "application/json"}


@dataclass
class Services:
    templates: Templates
    placements: Placements
    request_pools: RequestPools
    deprecated_calls: DeprecatedCalls


class Identity:
    """Stands where the identity middleware stands: header `caller: <tenant> <user>` for a verified principal."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            header = dict(scope["headers"]).get(b"caller", b"").decode().split()
            error = InvalidToken() if header == ["bad"] else None
            scope["state"] = {"principal": principal(*header) if len(header) == 2 else None, "identity_error": error}
        await self.app(scope, receive, send)


def principal(tenant: str, user: str) -> Principal:
    kind = "platform" if tenant == "platform" else "tenant"
    return Principal(
        kind="platform" if kind == "platform" else "tenant",
        subject=user,
        user_id=UUID(user),
        tenant_id=None if kind == "platform" else UUID(tenant),
        roles=("editor",),
        scopes=frozenset(),
        issuer="tests",
        token_id=None,
        expires_at=2e9,
    )


def as_(member: Member) -> dict[str, str]:
    return {"caller": f"{member.id} {member.user_id}"}


@pytest_asyncio.fixture
async def services(members: Members, pools: RequestPools) -> AsyncIterator[Services]:
    calls = DeprecatedCalls(members.databases)
    yield Services(members.templates, Placements(members.databases), pools, calls)
    await calls.aclose()


@pytest_asyncio.fixture
async def client(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=routes(services))
    app.add_middleware(Identity)
    install_problems(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as opened:
        yield opened


async def create(client: httpx.AsyncClient, member: Member, name: str, version: str = "v1") -> dict[str, Any]:
    answer = await client.post(f"/api/{version}/rpc/create_project", json={"name": name}, headers=as_(member))
    assert answer.status_code == 200, answer.text
    project: dict[str, Any] = answer.json()["data"]["project"]
    return project


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert set(body) == {
        "type", "title", "status", "detail", "instance", "code", "message", "details", "hint", "errors"
    }  # fmt: skip
    return body


@pytest.mark.parametrize("mode", MODES)
async def test_each_tenant_sees_exactly_its_own(members: Members, client: httpx.AsyncClient, mode: str) -> None:
    # attack 11
    acme, other = await members.add("acme", mode), await members.add("other", mode)
    ours = [await create(client, acme, f"acme {number}", f"v{number}") for number in (1, 2)]
    theirs = await create(client, other, "theirs")

    for version in ("v1", "v2", "default"):
        listed = await client.get(f"/api/{version}/projects", headers=as_(acme))
        assert listed.status_code == 200
        assert [document["name"] for document in listed.json()] == ["acme 1", "acme 2"]
        one = await client.get(f"/api/{version}/projects/{ours[0]['id']}", headers=as_(acme))
        assert one.json()["name"] == "acme 1"

    foreign = await client.get(f"/api/v1/projects/{theirs['id']}", headers=as_(acme))
    missing = await client.get(f"/api/v1/projects/{uuid4()}", headers=as_(acme))
    bodies = [problem(answer, 404, "not_found") for answer in (foreign, missing)]
    for body in bodies:
        del body["instance"]
    assert bodies[0] == bodies[1]  # attack 40

    renamed = await client.post(
        "/api/v1/rpc/rename_project", json={"id": theirs["id"], "name": "stolen"}, headers=as_(acme)
    )
    assert (renamed.status_code, renamed.json()["code"]) == (404, "not_found")
    assert (await client.get("/api/v1/projects", headers=as_(other))).json()[0]["name"] == "theirs"


async def test_answers_are_private_and_bytes_of_the_database(members: Members, client: httpx.AsyncClient) -> None:
    # attack 39
    member = await members.add("acme")
    await create(client, member, 'Zürich "quoted" \u2028 😀')
    answer = await client.get("/api/v1/projects", headers=as_(member))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["vary"] == "Authorization"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.json()[0]["name"] == 'Zürich "quoted" \u2028 😀'
    head = await client.head("/api/v1/projects", headers=as_(member))
    assert (head.status_code, head.content, head.headers["content-length"]) == (
        200,
        b"",
        answer.headers["content-length"],
    )


async def test_a_page_is_what_limit_and_offset_say(members: Members, client: httpx.AsyncClient) -> None:
    member = await members.add("acme")
    for number in range(5):
        await create(client, member, str(number))
    answer = await client.get("/api/v1/projects?limit=2&offset=3", headers=as_(member))
    assert [document["name"] for document in answer.json()] == ["3", "4"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=abc",
        "limit=",
        "limit=1&limit=2",
        "limit=%D9%A1",
        "offset=99999999999999999999",
        "offset=-1",
        "select=*",
        "order=id;select 1",
        "tenant_id=eq.1",
        "%00",
        "=",
    ],
)
async def test_other_parameters_are_refused_naming_what_is_allowed(
    members: Members, client: httpx.AsyncClient, query: str
) -> None:
    # attack 31
    member = await members.add("acme")
    body = problem(await client.get(f"/api/v1/projects?{query}", headers=as_(member)), 400, "invalid_input")
    assert "limit" in f"{body['message']} {body['hint']}" or "offset" in body["message"]
    assert (await client.get(f"/api/v1/projects/{uuid4()}?{query}", headers=as_(member))).status_code == 400


@pytest.mark.parametrize("id_", ["1", "x' OR 1=1--", "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}", "%00"])
async def test_an_id_that_is_no_uuid_is_a_400(members: Members, client: httpx.AsyncClient, id_: str) -> None:
    member = await members.add("acme")
    problem(await client.get(f"/api/v1/projects/{id_}", headers=as_(member)), 400, "invalid_input")


@pytest.mark.parametrize(
    "path",
    ["/api/v1/secrets", "/api/v9/projects", "/api/v0/projects", "/api/v01/projects", "/api/x/projects", "/api/v1/rpc"],
)
async def test_what_the_template_does_not_expose_is_a_404(
    members: Members, client: httpx.AsyncClient, path: str
) -> None:
    member = await members.add("acme")
    problem(await client.get(path, headers=as_(member)), 404, "not_found")


async def test_a_version_exists_from_its_pattern_version_on(members: Members, client: httpx.AsyncClient) -> None:
    member = await members.add("acme", version=1)
    problem(await client.get("/api/v2/projects", headers=as_(member)), 404, "not_found")
    assert (await client.get("/api/v1/projects", headers=as_(member))).status_code == 200


async def test_an_api_version_that_arrives_is_served_although_the_placement_is_cached(
    members: Members, services: Services, client: httpx.AsyncClient
) -> None:
    member = await members.add("acme", "schema", version=1)
    assert (await client.get("/api/v1/projects", headers=as_(member))).status_code == 200
    script = members.template.script(1, members.template.latest)
    async with members.databases.admin(members.cluster, member.home.database) as admin:
        await admin.execute(script.message(member.home.id, member.home.schema_name, 2.0))
    async with members.databases.registry.begin() as session:
        home = await session.merge(member.home)
        home.pattern_version = members.template.latest
    await asyncio.sleep(1.05)  # a placement younger than a second is not read again
    assert (await client.get("/api/v2/projects", headers=as_(member))).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST", "OPTIONS"])
async def test_tables_are_not_written_through_their_address(
    members: Members, client: httpx.AsyncClient, method: str
) -> None:
    member = await members.add("acme")
    for path in ("/api/v1/projects", f"/api/v1/projects/{uuid4()}"):
        answer = await client.request(method, path, headers=as_(member))
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD"
    answer = await client.get("/api/v1/rpc/create_project", headers=as_(member))
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("headers", "status", "code", "challenge"),
    [
        ({}, 401, "unauthenticated", "Bearer"),
        ({"caller": "bad"}, 401, "invalid_token", 'Bearer error="invalid_token"'),
        ({"caller": f"platform {uuid4()}"}, 403, "wrong_token_kind", None),
        ({"caller": f"{uuid4()} {uuid4()}"}, 404, "tenant_not_found", None),
        ({"x-tenant-id": str(uuid4())}, 401, "unauthenticated", "Bearer"),
    ],
)
async def test_who_has_no_tenant_gets_no_connection(
    members: Members,
    pools: RequestPools,
    client: httpx.AsyncClient,
    headers: dict[str, str],
    status: int,
    code: str,
    challenge: str | None,
) -> None:
    # attacks 41, 42
    await members.add("acme")
    for answer in (
        await client.get("/api/v1/projects", headers=headers),
        await client.get(f"/api/v1/projects/{uuid4()}", headers=headers),
        await client.post("/api/v1/rpc/create_project", json={"name": "x"}, headers=headers),
    ):
        problem(answer, status, code)
        assert answer.headers.get("www-authenticate") == challenge
    assert pools.open_connections(members.cluster.id) == 0


async def test_a_tenant_named_elsewhere_than_in_the_token_is_not_looked_at(
    members: Members, client: httpx.AsyncClient
) -> None:
    # attack 42
    acme, other = await members.add("acme"), await members.add("other")
    await create(client, other, "theirs")
    headers = {**as_(acme), "x-tenant-id": str(other.id), "host": "other.example.com"}
    assert (await client.get("/api/v1/projects", headers=headers)).json() == []


@pytest.mark.parametrize("mode", MODES)
async def test_suspending_and_resuming_take_effect_on_the_next_request(
    members: Members, client: httpx.AsyncClient, mode: str
) -> None:
    # attack 44: the placement stays cached all the time
    member = await members.add("acme", mode)
    await create(client, member, "ours")
    await members.set_state(member, "suspended")
    problem(await client.get("/api/v1/projects", headers=as_(member)), 403, "tenant_suspended")
    problem(
        await client.post("/api/v1/rpc/create_project", json={"name": "x"}, headers=as_(member)),
        403,
        "tenant_suspended",
    )
    await members.set_state(member, "active")
    assert len((await client.get("/api/v1/projects", headers=as_(member))).json()) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_a_dropped_tenant_is_a_404_although_its_placement_is_cached(
    members: Members, client: httpx.AsyncClient, mode: str
) -> None:
    member = await members.add("acme", mode)
    await create(client, member, "ours")
    await members.record(member, status="deleting")
    await members.set_state(member, "deleting")
    await members.drop(member)
    for _ in range(2):
        problem(await client.get("/api/v1/projects", headers=as_(member)), 404, "tenant_not_found")


async def test_a_schema_dropped_behind_our_back_is_a_404(members: Members, client: httpx.AsyncClient) -> None:
    # the statement is parsed, and fails, before its gate can say that the tenant is gone
    member = await members.add("acme", "schema")
    await create(client, member, "ours")
    await members.record(member, status="deleted")
    await members.set_state(member, "suspended")
    async with members.databases.admin(members.cluster, member.home.database) as admin:
        await admin.execute("SELECT tenancy.drop_tenant_schema($1)", member.slug)
    problem(await client.get("/api/v1/projects", headers=as_(member)), 404, "tenant_not_found")


async def test_a_moving_tenant_is_a_503_with_retry_after(members: Members, client: httpx.AsyncClient) -> None:
    member = await members.add("acme")
    await members.set_state(member, "moving")
    answer = await client.get("/api/v1/projects", headers=as_(member))
    problem(answer, 503, "tenant_moving")
    assert answer.headers["retry-after"] == "1"


async def test_an_old_epoch_is_resolved_again_unseen(members: Members, client: httpx.AsyncClient) -> None:
    # attack 38
    member = await members.add("acme")
    await create(client, member, "ours")
    await members.set_state(member, "active", epoch=2)
    await members.record(member, epoch=2)
    assert len((await client.get("/api/v1/projects", headers=as_(member))).json()) == 1
    await members.set_state(member, "active", epoch=3)  # the registry does not know yet
    problem(await client.get("/api/v1/projects", headers=as_(member)), 503, "tenant_moving")


async def test_known_tenants_are_served_while_the_registry_is_away(
    members: Members, services: Services, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown = await members.add("acme"), await members.add("other")
    await create(client, known, "ours")

    async def down(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(Placements, "_read_registry", down)
    services.placements._entries[known.id].recheck_at = 0.0
    assert (await client.get("/api/v1/projects", headers=as_(known))).status_code == 200
    answer = await client.get("/api/v1/projects", headers=as_(unknown))
    problem(answer, 503, "registry_unavailable")
    assert answer.headers["retry-after"]


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


async def test_unexpected_database_errors_tell_an_id_and_nothing_else(
    members: Members, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    # attack 40
    member = await members.add("acme", "schema")
    async with members.databases.admin(members.cluster, member.home.database) as admin:
        await admin.execute(
            f"SET ROLE cp_owner; ALTER TABLE {member.home.schema_name}.tb_project"
            " ADD CONSTRAINT secret_rule CHECK (name <> 'forbidden'), ADD COLUMN broken int GENERATED ALWAYS AS"
            " (1 / (CASE name WHEN 'zero' THEN 0 ELSE 1 END)) STORED"
        )
    answer = await client.post("/api/v1/rpc/create_project", json={"name": "forbidden"}, headers=as_(member))
    problem(answer, 422, "unprocessable")
    assert "secret_rule" not in answer.text
    assert "forbidden" not in answer.text
    answer = await client.post("/api/v1/rpc/create_project", json={"name": "zero"}, headers=as_(member))
    body = problem(answer, 500, "internal")
    assert "zero" not in answer.text
    assert body["details"].removeprefix("urn:uuid:") in caplog.text


@pytest.fixture
def collisions(monkeypatch: pytest.MonkeyPatch) -> list[asyncpg.PostgresError]:
    """Errors that the next calls of a function meet before they reach the database."""
    waiting: list[asyncpg.PostgresError] = []
    original = gate.call_function

    async def colliding(*arguments: Any, **options: Any) -> gate.MutationResult:
        if waiting:
            raise waiting.pop()
        return await original(*arguments, **options)

    monkeypatch.setattr(gate, "call_function", colliding)
    return waiting


async def test_collisions_are_tried_again_three_times(
    members: Members, client: httpx.AsyncClient, collisions: list[asyncpg.PostgresError]
) -> None:
    member = await members.add("acme")
    collisions += [asyncpg.SerializationError(), asyncpg.DeadlockDetectedError(), asyncpg.SerializationError()]
    await create(client, member, "third time lucky")
    collisions += [asyncpg.SerializationError()] * 4
    answer = await client.post("/api/v1/rpc/create_project", json={"name": "no"}, headers=as_(member))
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"]
    assert [d["name"] for d in (await client.get("/api/v1/projects", headers=as_(member))).json()] == [
        "third time lucky"
    ]


async def test_a_lost_connection_repeats_a_read_and_not_a_call(
    members: Members, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await members.add("acme")
    await create(client, member, "ours")
    reads, calls = gate.read_list, gate.call_function
    lost: list[str] = []

    def losing(original: Any, name: str) -> Any:
        async def lose(*arguments: Any, **options: Any) -> Any:
            result = await original(*arguments, **options)
            if name not in lost:
                lost.append(name)
                raise asyncpg.ConnectionDoesNotExistError("after the server has done its work")
            return result

        return lose

    monkeypatch.setattr(gate, "read_list", losing(reads, "read"))
    monkeypatch.setattr(gate, "call_function", losing(calls, "call"))
    answer = await client.post("/api/v1/rpc/create_project", json={"name": "once"}, headers=as_(member))
    problem(answer, 503, "unavailable")
    listed = await client.get("/api/v1/projects", headers=as_(member))
    assert [document["name"] for document in listed.json()] == ["ours", "once"]
    assert lost == ["call", "read"]


async def test_a_statement_that_runs_too_long_is_a_503(members: Members, client: httpx.AsyncClient) -> None:
    member = await members.add("acme", "schema")
    await create(client, member, "ours")
    async with members.databases.admin(members.cluster, member.home.database) as admin:
        await admin.execute(f"ALTER ROLE \"{member.home.role_name}\" SET statement_timeout = '50ms'")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", member.home.role_name
        )
        await asyncio.sleep(0.1)
        async with admin.transaction():
            await admin.execute(f"SET LOCAL ROLE cp_owner; LOCK TABLE {member.home.schema_name}.tb_project")
            answer = await client.get("/api/v1/projects", headers=as_(member))
            problem(answer, 503, "timed_out")
            assert answer.headers["retry-after"]
    assert (await client.get("/api/v1/projects", headers=as_(member))).status_code == 200
