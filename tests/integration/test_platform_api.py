"""The platform API over ASGI, on a real server."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from starlette.routing import Route, WebSocketRoute

from control_plane.api.app import create_app
from control_plane.api.limits import MAX_BODY
from control_plane.registry.models import Cluster
from control_plane.service import ControlPlane
from control_plane.settings import Settings, shipped
from control_plane.templates import Templates
from tests.support.callers import client, open_plane, platform_headers, tenant_headers
from tests.support.servers import Server

LATEST = Templates.load(shipped("tenant_templates"))["reference"].latest

TENANT_FIELDS = {
    "id", "slug", "name", "isolation", "status", "plan", "template", "pattern_version", "cluster", "labels",
    "created_at", "updated_at",
}  # fmt: skip
PROBLEM_FIELDS = {
    "type", "title", "status", "detail", "instance", "code", "message", "details", "hint", "errors",
}  # fmt: skip
FORGED_CURSOR = base64.urlsafe_b64encode(f"\0 {uuid4()}".encode()).decode().rstrip("=")
PUBLIC = {"/healthz", "/readyz"}
README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")


@pytest_asyncio.fixture
async def plane(settings: Settings, cluster: Cluster) -> AsyncIterator[ControlPlane]:
    async with open_plane(settings) as opened:
        yield opened


@pytest.fixture
def app(plane: ControlPlane) -> FastAPI:
    return create_app(plane)


@pytest_asyncio.fixture
async def api(app: FastAPI, plane: ControlPlane) -> AsyncIterator[httpx.AsyncClient]:
    """A caller with every scope."""
    async with client(app, platform_headers(plane)) as opened:
        yield opened


async def onboard(api: httpx.AsyncClient, slug: str, isolation: str = "schema", **more: Any) -> dict[str, Any]:
    answer = await api.post("/tenants", json={"slug": slug, "name": slug.title(), "isolation": isolation, **more})
    assert answer.status_code == 201, answer.text
    tenant: dict[str, Any] = answer.json()
    return tenant


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert set(problem) == PROBLEM_FIELDS
    assert (problem["status"], problem["code"]) == (status, code)
    return problem


@pytest.mark.parametrize("isolation", ["shared", "schema", "database"])
async def test_a_tenant_is_onboarded_shown_changed_and_deleted(api: httpx.AsyncClient, isolation: str) -> None:
    answer = await api.post(
        "/tenants",
        json={"slug": "acme", "name": "Acme Inc.", "isolation": isolation, "plan": "team", "labels": {"region": "eu"}},
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/tenants/acme"
    tenant = answer.json()
    assert set(tenant) == TENANT_FIELDS
    assert tenant | {"id": 0, "created_at": 0, "updated_at": 0} == {
        "id": 0, "slug": "acme", "name": "Acme Inc.", "isolation": isolation, "status": "active", "plan": "team",
        "template": "reference", "pattern_version": LATEST, "cluster": "main", "labels": {"region": "eu"},
        "created_at": 0, "updated_at": 0,
    }  # fmt: skip

    assert (await api.get("/tenants/acme")).json() == tenant
    assert (await api.get(f"/tenants/{tenant['id']}")).json() == tenant

    changed = (await api.patch("/tenants/acme", json={"name": "Acme", "plan": None})).json()
    assert (changed["name"], changed["plan"], changed["labels"]) == ("Acme", None, {"region": "eu"})

    deleted = await api.delete("/tenants/acme")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert_problem(await api.get("/tenants/acme"), 404, "tenant_not_found")
    assert_problem(await api.delete("/tenants/acme"), 404, "tenant_not_found")


async def test_suspending_takes_effect_at_once_and_resuming_too(api: httpx.AsyncClient, plane: ControlPlane) -> None:
    tenant = await onboard(api, "acme", "shared")
    caller = tenant_headers(plane, tenant["id"])
    assert (await api.get("/api/v1/projects", headers=caller)).json() == []

    assert (await api.post("/tenants/acme/suspend")).json()["status"] == "suspended"
    assert_problem(await api.get("/api/v1/projects", headers=caller), 403, "tenant_suspended")

    assert (await api.post("/tenants/acme/resume")).json()["status"] == "active"
    assert (await api.get("/api/v1/projects", headers=caller)).status_code == 200


async def test_a_taken_slug_is_refused(api: httpx.AsyncClient) -> None:
    await onboard(api, "acme")
    answer = await api.post("/tenants", json={"slug": "acme", "name": "Other", "isolation": "shared"})
    assert_problem(answer, 409, "slug_taken")


async def test_of_many_requests_for_one_slug_one_wins(api: httpx.AsyncClient) -> None:
    body = {"slug": "race", "name": "Race", "isolation": "schema"}
    answers = await asyncio.gather(*(api.post("/tenants", json=body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


UUID_LIKE = "abcdef01-e89b-12d3-a456-426614174000"


@pytest.mark.parametrize(
    "slug", ["", "A", "a_b", "a", "public", "a--b", "é" * 5, "a" * 41, UUID_LIKE, 'a"; DROP SCHEMA x']
)
async def test_a_bad_slug_is_refused(api: httpx.AsyncClient, slug: str) -> None:
    answer = await api.post("/tenants", json={"slug": slug, "name": "X", "isolation": "schema"})
    assert_problem(answer, 400, "invalid_slug")


async def test_the_same_idempotency_key_answers_the_same_tenant(api: httpx.AsyncClient, plane: ControlPlane) -> None:
    body = {"slug": "acme", "name": "Acme", "isolation": "schema"}
    key = {"Idempotency-Key": "onboard-acme-1"}
    first, second = [await api.post("/tenants", json=body, headers=key) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()

    other = await api.post("/tenants", json={**body, "slug": "other"}, headers=key)
    assert_problem(other, 409, "idempotency_key_reused")

    somebody_else = key | platform_headers(plane, subject="somebody else")
    assert_problem(await api.post("/tenants", json=body, headers=somebody_else), 409, "slug_taken")


async def test_what_takes_longer_than_the_wait_is_answered_with_its_operation(
    settings: Settings, cluster: Cluster
) -> None:
    async with (
        open_plane(settings.model_copy(update={"provision_wait": 0.0})) as plane,
        client(create_app(plane), platform_headers(plane)) as api,
    ):
        answer = await api.post("/tenants", json={"slug": "slow", "name": "Slow", "isolation": "database"})
        assert (answer.status_code, answer.json()["status"]) == (202, "provisioning")
        operation = await finished(api, answer.headers["location"])
        assert (operation["status"], operation["percent"], operation["kind"]) == ("succeeded", 100, "provision")
        assert operation["tenant_id"] == answer.json()["id"]
        assert (await api.get("/tenants/slow")).json()["status"] == "active"

        removal = await api.delete("/tenants/slow")
        assert removal.status_code == 202
        operation = await finished(api, removal.headers["location"])
        assert (operation["status"], operation["kind"]) == ("succeeded", "delete")


async def finished(api: httpx.AsyncClient, where: str) -> dict[str, Any]:
    """The operation at `where`, once it is."""
    for _ in range(600):
        operation: dict[str, Any] = (await api.get(where)).json()
        if operation["status"] not in ("queued", "running"):
            return operation
        await asyncio.sleep(0.05)
    raise AssertionError(f"{where} does not finish: {operation}")


async def test_a_tenant_may_start_on_an_older_version(api: httpx.AsyncClient) -> None:
    assert (await onboard(api, "old", "schema", version=1))["pattern_version"] == 1
    unknown = await api.post("/tenants", json={"slug": "newer", "name": "Newer", "isolation": "schema", "version": 99})
    assert_problem(unknown, 404, "template_not_found")


async def test_a_shared_tenant_cannot_have_another_version_than_its_home(api: httpx.AsyncClient) -> None:
    await onboard(api, "first", "shared")
    answer = await api.post("/tenants", json={"slug": "second", "name": "S", "isolation": "shared", "version": 1})
    assert_problem(answer, 409, "version_conflict")


async def test_lists_are_paged_and_filtered(api: httpx.AsyncClient) -> None:
    for slug in ("aa", "bb", "cc"):
        await onboard(api, slug, "shared")
    await onboard(api, "dd", "schema", version=2)
    await api.post("/tenants/bb/suspend")

    slugs, query = [], "/tenants?limit=2"
    while query:
        page = await api.get(query)
        slugs += [tenant["slug"] for tenant in page.json()["items"]]
        assert ("next" in page.links) == (page.json()["next_cursor"] is not None)
        query = page.links["next"]["url"] if "next" in page.links else ""
    assert slugs == ["aa", "bb", "cc", "dd"]

    async def filtered(**filters: Any) -> list[str]:
        return [tenant["slug"] for tenant in (await api.get("/tenants", params=filters)).json()["items"]]

    assert await filtered(status="suspended") == ["bb"]
    assert await filtered(isolation="schema") == ["dd"]
    assert await filtered(version=2) == ["dd"]
    assert await filtered(cluster="main", isolation="shared", status="active") == ["aa", "cc"]
    assert await filtered(cluster="elsewhere") == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "cursor=!", "status=odd", "isolation=none", "version=-1"]
)
async def test_a_list_refuses_what_it_does_not_understand(api: httpx.AsyncClient, query: str) -> None:
    assert_problem(await api.get(f"/tenants?{query}"), 400, "invalid_input")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"slug": "acme", "name": "Acme", "isolation": "none"},
        {"slug": "acme", "name": "", "isolation": "schema"},
        {"slug": "acme", "name": "a\u0000b", "isolation": "schema"},
        {"slug": "acme", "name": "Acme", "isolation": "schema", "labels": {"a": 1}},
        {"slug": "acme", "name": "Acme", "isolation": "schema", "version": 0},
        {"slug": "acme", "name": "Acme", "isolation": "schema", "surprise": True},
    ],
)
async def test_a_body_that_is_not_valid_is_refused(api: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert_problem(await api.post("/tenants", json=body), 400, "invalid_input")


@pytest.mark.parametrize("name", [rb'"\ud800"', rb'"\u0000"', b'"\xff"', b"1e400", b'"a'])
async def test_text_that_postgresql_cannot_store_is_refused(api: httpx.AsyncClient, name: bytes) -> None:
    body = b'{"slug": "acme", "isolation": "schema", "name": ' + name + b"}"
    answer = await api.post("/tenants", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert_problem(await api.get("/tenants/%00"), 400, "invalid_input")
    assert_problem(await api.get("/tenants?cluster=%00"), 400, "invalid_input")
    assert_problem(await api.get(f"/tenants?cursor={FORGED_CURSOR}"), 400, "invalid_input")


async def test_a_patch_refuses_null_where_nothing_can_be_null(api: httpx.AsyncClient) -> None:
    await onboard(api, "acme", "shared")
    for body in ({"name": None}, {"labels": None}, {"slug": "other"}):
        assert_problem(await api.patch("/tenants/acme", json=body), 400, "invalid_input")


async def test_a_body_past_the_limit_is_refused(api: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 65_536 + 1):
            yield b" " * 65_536

    assert_problem(await api.post("/tenants", content=b" " * (MAX_BODY + 1)), 413, "payload_too_large")
    assert_problem(await api.post("/tenants", content=chunks()), 413, "payload_too_large")


async def test_unknown_things_are_not_found(api: httpx.AsyncClient) -> None:
    for path in ("/tenants/nobody", f"/tenants/{uuid4()}", "/tenants/a_b"):
        assert_problem(await api.get(path), 404, "tenant_not_found")
    assert_problem(await api.post("/tenants/nobody/suspend"), 404, "tenant_not_found")
    assert_problem(await api.get(f"/operations/{uuid4()}"), 404, "operation_not_found")
    assert_problem(await api.get("/nowhere"), 404, "not_found")
    assert_problem(await api.put("/tenants/acme"), 405, "method_not_allowed")
    unplaced = {"slug": "acme", "name": "Acme", "isolation": "schema", "cluster": "elsewhere"}
    assert_problem(await api.post("/tenants", json=unplaced), 404, "cluster_not_found")


async def test_a_cluster_is_registered_once_and_never_shows_its_dsn(
    api: httpx.AsyncClient, server: Server, second_server: Server
) -> None:
    body = {"name": "eu-1", "dsn": second_server.dsn, "region": "eu", "isolations": ["schema"], "capacity": 1}
    added = await api.post("/clusters", json=body)
    assert added.status_code == 201, added.text
    listed = await api.get("/clusters")
    assert [each["name"] for each in listed.json()] == ["eu-1", "main"]
    assert second_server.dsn not in added.text + listed.text
    assert (added.json()["isolations"], added.json()["capacity"], added.json()["tenants"]) == (["schema"], 1, 0)
    assert_problem(await api.post("/clusters", json=body), 409, "cluster_name_taken")
    assert_problem(await api.post("/clusters", json={"name": "again", "dsn": server.dsn}), 409, "conflict")

    await onboard(api, "acme", "schema", cluster="eu-1")
    full = await api.post("/tenants", json={"slug": "bcme", "name": "B", "isolation": "schema", "cluster": "eu-1"})
    assert_problem(full, 409, "no_capacity")


@pytest.mark.parametrize("dsn", ["postgresql://nobody@127.0.0.1:1/postgres", "no dsn", "postgresql://h:x/"])
async def test_a_cluster_that_cannot_be_reached_is_refused(api: httpx.AsyncClient, dsn: str) -> None:
    answer = await api.post("/clusters", json={"name": "gone", "dsn": dsn})
    assert answer.status_code in (400, 503), answer.text
    assert answer.json()["code"] in ("invalid_input", "cluster_unavailable")
    assert [each["name"] for each in (await api.get("/clusters")).json()] == ["main"]


async def test_a_pooler_has_to_answer_before_requests_go_through_it(api: httpx.AsyncClient) -> None:
    async def patched(name: str, body: object) -> httpx.Response:
        return await api.patch(f"/clusters/{name}", json=body)

    nobody = "postgresql://127.0.0.1:1"
    assert_problem(await patched("main", {"pooler": nobody}), 503, "cluster_unavailable")
    assert_problem(await patched("main", {"pooler": "postgresql://role:secret@pooler"}), 400, "invalid_input")
    assert_problem(await patched("main", {}), 400, "invalid_input")
    assert_problem(await patched("gone", {"pooler": None}), 404, "cluster_not_found")
    answer = await patched("main", {"pooler": None})
    assert (answer.status_code, answer.json()["pooler"]) == (200, None)
    assert [each["pooler"] for each in (await api.get("/clusters")).json()] == [None]


async def test_every_route_is_public_by_name_or_demands_a_token(app: FastAPI) -> None:
    document = app.openapi()
    async with client(app) as nobody:
        public = set()
        for path, methods in document["paths"].items():
            for method in methods:
                answer = await nobody.request(method, path.replace("{", "").replace("}", ""), json={})
                if answer.status_code == 401:
                    assert_problem(answer, 401, "unauthenticated")
                    assert answer.headers["www-authenticate"] == "Bearer"
                else:
                    public.add(path)
        assert public == PUBLIC
        for path in ("/docs", "/openapi.json"):
            assert (await nobody.get(path)).status_code == 200


def test_the_service_has_no_transport_but_http(app: FastAPI) -> None:
    """Attacks 41 and 45: no web socket that would have to authenticate by itself, and outlive its token."""
    found = [route for route in app.router.routes if isinstance(route, WebSocketRoute)]
    assert found == []
    assert any(isinstance(route, Route) for route in app.router.routes)


async def test_a_tenant_token_is_refused_on_every_platform_route(app: FastAPI, plane: ControlPlane) -> None:
    async with client(app, tenant_headers(plane, uuid4())) as tenant:
        for path, methods in app.openapi()["paths"].items():
            for method in methods:
                if path not in PUBLIC and not path.startswith("/api/"):
                    answer = await tenant.request(method, path.replace("{", "").replace("}", ""), json={})
                    assert_problem(answer, 403, "wrong_token_kind")


async def test_a_platform_token_is_refused_on_the_tenant_api(api: httpx.AsyncClient) -> None:
    assert_problem(await api.get("/api/v1/projects"), 403, "wrong_token_kind")


async def test_the_readme_s_table_of_the_platform_api_is_true(app: FastAPI, plane: ControlPlane) -> None:
    table = README.partition("\n## The platform API\n")[2].partition("\n## ")[0]
    needs = {
        tuple(call.split()): scope
        for calls, scope in re.findall(r"^\| (`.*`) \| `([a-z:]+)` \|", table, re.MULTILINE)
        for call in re.findall(r"`([^`]+)`", calls)
    }
    assert needs.keys() == {
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        if path not in PUBLIC and not path.startswith("/api/")
        for method in methods
    }
    scopes = set(needs.values())
    async with client(app) as caller:
        for (method, path), scope in needs.items():
            address = path.replace("{id}", str(uuid4())).replace("{", "").replace("}", "")
            others = platform_headers(plane, *(scopes - {scope}))
            body = {"surprise": True}
            assert_problem(await caller.request(method, address, headers=others, json=body), 403, "insufficient_scope")
            allowed = await caller.request(method, address, headers=platform_headers(plane, scope), json=body)
            assert allowed.status_code in (200, 400, 404), allowed.text


async def test_a_forged_token_is_refused(app: FastAPI) -> None:
    async with client(app, {"Authorization": "Bearer e30.e30.e30"}) as forger:
        assert_problem(await forger.get("/tenants"), 401, "invalid_token")
        assert (await forger.get("/healthz")).status_code == 200


async def test_readiness_names_each_cluster(
    app: FastAPI, plane: ControlPlane, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client(app) as nobody:
        ready = await nobody.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            200,
            {"status": "ready", "registry": "ok", "revocations": "ok", "clusters": {"main": "ok"}},
        )
        monkeypatch.setattr("control_plane.api.readiness.FRESH", -1.0)
        async with plane.databases.registry.begin() as session:
            found = await session.get(Cluster, cluster.id)
            assert found is not None
            found.dsn = plane.databases.box.seal("postgresql://cp_admin@127.0.0.1:1/postgres")
        gone = await nobody.get("/readyz")
        assert (gone.status_code, gone.json()) == (
            503,
            {"status": "not_ready", "registry": "ok", "revocations": "ok", "clusters": {"main": "unreachable"}},
        )
        assert gone.headers["retry-after"] == "1"
