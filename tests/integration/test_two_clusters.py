"""Tenants on two servers: placed, served and released together, and apart when one server is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from control_plane.api.app import create_app
from control_plane.embedded import EmbeddedServer
from control_plane.migrator import Options, migrate_all
from control_plane.registry.models import Cluster
from control_plane.service import ControlPlane, initialise, open_control_plane
from control_plane.settings import Settings
from tests.support.callers import client, platform_headers, tenant_headers
from tests.support.servers import FAST, dsn_with, temporary_home
from tests.support.templates import with_first_versions

MODES = ("shared", "schema", "database")


@pytest.fixture
def mortal() -> Iterator[EmbeddedServer]:
    """A server that the test may stop."""
    with temporary_home() as home, EmbeddedServer(home, settings=FAST) as embedded:
        yield embedded


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_first_versions(settings, tmp_path / "templates")


@pytest_asyncio.fixture
async def plane(settings: Settings, cluster: Cluster) -> AsyncIterator[ControlPlane]:
    """A fleet at version 1, with the session's server as cluster `main`."""
    async with open_control_plane(settings) as opened:
        await initialise(opened, template_version=1, first_cluster=False, actor="tests")
        await opened.start()
        yield opened


@pytest_asyncio.fixture
async def api(plane: ControlPlane, mortal: EmbeddedServer) -> AsyncIterator[httpx.AsyncClient]:
    """A platform caller; the other server is cluster `eu-1`."""
    async with client(create_app(plane), platform_headers(plane)) as opened:
        dsn = dsn_with(mortal.admin_dsn, database="postgres")
        added = await opened.post("/clusters", json={"name": "eu-1", "dsn": dsn})
        assert added.status_code == 201, added.text
        yield opened


async def onboard(api: httpx.AsyncClient, slug: str, isolation: str, cluster: str | None = None) -> dict[str, str]:
    body = {"slug": slug, "name": slug, "isolation": isolation, "cluster": cluster}
    answer = await api.post("/tenants", json={name: value for name, value in body.items() if value})
    assert answer.status_code == 201, answer.text
    tenant: dict[str, str] = answer.json()
    return tenant


async def test_new_tenants_go_where_fewest_are(api: httpx.AsyncClient) -> None:
    placed = [(await onboard(api, f"tenant-{number}", "schema"))["cluster"] for number in range(4)]
    assert sorted(placed) == ["eu-1", "eu-1", "main", "main"]


async def test_a_release_reaches_both_clusters_and_each_tenant_keeps_its_own(
    api: httpx.AsyncClient, plane: ControlPlane
) -> None:
    tenants = [await onboard(api, f"{mode}-{c}", mode, c) for mode in MODES[1:] for c in ("main", "eu-1")]
    tenants += [await onboard(api, f"in-{c}", "shared", c) for c in ("main", "eu-1")]
    for tenant in tenants:
        caller = tenant_headers(plane, tenant["id"])
        made = await api.post("/api/v1/rpc/create_project", json={"name": tenant["slug"]}, headers=caller)
        assert made.status_code == 200, made.text

    result = await migrate_all(plane.databases, plane.templates["reference"], Options())
    assert (result.status, result.done) == ("done", 6)
    for tenant in tenants:
        plane.placements.forget(UUID(tenant["id"]))  # else an API version that was absent is looked for again in 1 s
        caller = tenant_headers(plane, tenant["id"])
        listed = await api.get("/api/v2/projects", headers=caller)
        assert [project["name"] for project in listed.json()] == [tenant["slug"]]
        assert (await api.get(f"/tenants/{tenant['slug']}")).json()["pattern_version"] == 3


async def test_a_lost_server_is_a_503_for_its_tenants_only(
    api: httpx.AsyncClient, plane: ControlPlane, mortal: EmbeddedServer
) -> None:
    there, here = await onboard(api, "there", "shared", "eu-1"), await onboard(api, "here", "shared", "main")
    there_caller, here_caller = tenant_headers(plane, there["id"]), tenant_headers(plane, here["id"])
    assert (await api.get("/api/v1/projects", headers=there_caller)).status_code == 200

    mortal.stop()
    for _ in range(3):
        lost = await api.get("/api/v1/projects", headers=there_caller)
        assert (lost.status_code, lost.json()["code"]) == (503, "cluster_unavailable")
        assert int(lost.headers["retry-after"]) > 0
        assert (await api.get("/api/v1/projects", headers=here_caller)).json() == []
    elsewhere = await api.post(
        "/tenants", json={"slug": "later", "name": "Later", "isolation": "shared", "cluster": "main"}
    )
    assert elsewhere.status_code == 201
    assert (await api.post("/tenants/there/suspend")).json()["code"] == "cluster_unavailable"

    result = await migrate_all(plane.databases, plane.templates["reference"], Options())
    assert (result.status, result.done) == ("failed", 1)
    assert [each.place.cluster.name for each in result.plan.unreached] == ["eu-1"]

    mortal.start()
    assert (await migrate_all(plane.databases, plane.templates["reference"], Options())).status == "done"
    await asyncio.sleep(1.1)  # the pools do not try a lost server again at once
    back = await api.get("/api/v2/projects", headers=there_caller)
    assert (back.status_code, back.json()) == (200, [])


async def test_readiness_names_each_cluster(api: httpx.AsyncClient, mortal: EmbeddedServer) -> None:
    ready = await api.get("/readyz")
    assert (ready.status_code, ready.json()["clusters"]) == (200, {"main": "ok", "eu-1": "ok"})
