"""The register of deprecations over HTTP, and the links to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from control_plane.migrator import Options, migrate_all
from control_plane.pools import gate
from control_plane.pools.databases import Databases
from control_plane.pools.requests import RequestPools
from control_plane.registry.models import Cluster
from control_plane.settings import Settings
from tests.integration.tenant_api.calls import MODES, as_, problem
from tests.support.members import Members
from tests.support.templates import with_next_version
from tests.support.tenant_calls import principal, tenant_calls

TODAY = datetime.now(UTC).date()
USERNAME = {
    "api": 2,
    "resource": "users",
    "field": "username",
    "replacement": "name",
    "announced": "2026-11-22",
    "sunset": "2027-06-30",
    "removed": False,
}
FAREWELL = f"""
[[deprecations]]
api = 1
since = 3
announced = 2026-01-01
sunset = {TODAY - timedelta(days=1)}
removed_in = 4

[[deprecations]]
api = 2
resource = "projects"
since = 4
announced = 2026-03-01
sunset = {TODAY + timedelta(days=100)}
"""


def retiring(settings: Settings, into: Path) -> Settings:
    """A template whose version 4 takes API version 1 away and announces the end of a resource of version 2."""
    edits = {"1 = { since = 1 }": "1 = { since = 1, retired = 4 }", "": FAREWELL}
    return with_next_version(settings, into, "farewell", {"smoke.sql": "SELECT 1;"}, edits)


@pytest.mark.parametrize("mode", MODES)
async def test_the_register_of_a_version_is_the_tenant_s(
    members: Members, client: httpx.AsyncClient, mode: str
) -> None:
    member = await members.add("acme", mode)
    for path in ("/api/v2/deprecations", "/api/default/deprecations", "/api/v2/deprecations?select=*"):
        answer = await client.get(path, headers=as_(member))
        assert (answer.status_code, answer.json()) == (200, [USERNAME])
        read = await client.get("/api/v1/users", headers=as_(member))
        for name in ("content-type", "cache-control", "vary"):
            assert answer.headers[name] == read.headers[name]
    assert (await client.get("/api/v1/deprecations", headers=as_(member))).json() == []
    head = await client.head("/api/v2/deprecations", headers=as_(member))
    assert (head.status_code, head.content) == (200, b"")


async def test_a_tenant_sees_what_its_own_version_announces(members: Members, client: httpx.AsyncClient) -> None:
    member = await members.add("acme", version=2)
    assert (await client.get("/api/v1/deprecations", headers=as_(member))).json() == []
    problem(await client.get("/api/v2/deprecations", headers=as_(member)), 404, "not_found")


async def test_what_makes_no_sense_is_refused(members: Members, client: httpx.AsyncClient) -> None:
    member = await members.add("acme")
    path = "/api/v2/deprecations"
    problem(await client.get(path), 401, "unauthenticated")
    problem(await client.get(f"{path}?limit=1", headers=as_(member)), 400, "invalid_input")
    problem(await client.get(path, headers={**as_(member), "accept": "text/csv"}), 406, "PGRST107")
    for version in ("v9", "v0", "2"):
        problem(await client.get(f"/api/{version}/deprecations", headers=as_(member)), 404, "not_found")
    answer = await client.post(path, headers=as_(member))
    assert (problem(answer, 405, "method_not_allowed")["code"], answer.headers["allow"]) == (
        "method_not_allowed",
        "GET, HEAD",
    )


@pytest.mark.parametrize("mode", MODES)
async def test_a_retired_version_has_no_register_any_more(
    databases: Databases, cluster: Cluster, installation_id: UUID, pools: RequestPools, tmp_path: Path, mode: str
) -> None:
    databases.settings = retiring(databases.settings, tmp_path / "templates")
    members = Members(databases, cluster, installation_id)
    member = await members.add("acme", mode, version=3)
    async with tenant_calls(members) as calls:
        who = principal(member, member.user_id)
        announced = await calls.get(who, "/api/v1/deprecations")
        ending: dict[str, Any] = {"api": 1, "resource": None, "field": None, "replacement": None, "removed": False}
        (entry,) = announced.json()
        assert entry.items() >= ending.items()
        assert announced.headers["deprecation"] == "@1767225600"
        assert (await migrate_all(databases, members.template, Options())).status == "done"
        async with pools.connection(member.placement) as connection:  # what a cached placement would still ask
            assert await gate.read_deprecations(connection, member.caller, 1) is None
            assert await gate.read_deprecations(connection, member.caller, 2) is not None
    async with tenant_calls(members) as calls:
        gone = await calls.get(who, "/api/v1/deprecations")
        assert (gone.status_code, gone.json()["code"], gone.json()["hint"]) == (410, "gone", "Use v2.")
        assert [entry["resource"] for entry in (await calls.get(who, "/api/v2/deprecations")).json()] == [
            "projects",
            "users",
        ]
        await links(calls, who)


async def links(calls: Any, who: Any) -> None:
    """The whole resource says when; one with a deprecated field only says where; others say nothing."""
    link = '</api/v2/deprecations>; rel="deprecation"'
    for path, deprecation, linked in (
        ("/api/v2/projects", "@1772323200", link),
        ("/api/default/projects", "@1772323200", link),
        ("/api/v2/users", None, link),
        ("/api/v2/deprecations", None, None),
    ):
        headers = (await calls.get(who, path)).headers
        assert (headers.get("deprecation"), headers.get("link")) == (deprecation, linked), path
        assert ("sunset" in headers) is (deprecation is not None)
