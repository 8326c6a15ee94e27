"""A run that is asked for over HTTP, with processes: one serves, and a worker that is killed leaves it to the next."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_platform_token
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, RunHome
from control_plane.settings import Settings
from control_plane.templates import Templates
from tests.integration.migrator.runs import WAITING, holding, until
from tests.support.fleet import Fleet
from tests.support.program import PATIENCE, free_port, settings_environment
from tests.support.templates import with_first_versions

HELD = 'LOCK TABLE "{schema}".tb_user IN ACCESS SHARE MODE'


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_first_versions(settings.model_copy(update={"port": free_port()}), tmp_path / "templates")


@pytest.fixture
def fleet(databases: Databases, cluster: Cluster, installation_id: UUID, settings: Settings) -> Fleet:
    return Fleet(databases, cluster, installation_id, Templates.load(settings.templates)["reference"])


@asynccontextmanager
async def started(settings: Settings, output: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that goes on, killed at the end if it still runs."""
    # So long that the home whose table is held is still waited for when the worker is killed.
    environment = settings_environment(settings) | {"CP_PORT": str(settings.port), "CP_LOCK_TIMEOUT": "60"}
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "control_plane", *arguments, env=environment, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ready(api: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if (await api.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


async def follow(api: httpx.AsyncClient, address: str, told: list[dict[str, Any]], after: str | None = None) -> None:
    """Append the events to `told` as they come, until the stream ends."""
    headers = {} if after is None else {"Last-Event-ID": after}
    event: dict[str, Any] = {}
    async with api.stream("GET", f"{address}/events", headers=headers) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "data":
                told.append(event | json.loads(value))
            elif name:
                event[name] = value


async def told_of(told: list[dict[str, Any]], **wanted: object) -> None:
    async with asyncio.timeout(PATIENCE):
        while not any(event.items() >= wanted.items() for event in told):
            await asyncio.sleep(0.02)


async def test_a_run_outlives_its_worker_and_those_who_follow_it_hear_of_the_end(
    fleet: Fleet, settings: Settings, tmp_path: Path
) -> None:
    homes = [await fleet.add(f"acme-{mode}", mode) for mode in ("schema", "database")]
    last = await fleet.add("common", "shared")
    token = mint_platform_token(development_issuer(settings), "deploy", ["migrations:read", "migrations:write"])
    told: list[dict[str, Any]] = []
    async with (
        started(settings, tmp_path / "serve.log", "serve", "--no-worker") as serving,
        started(settings, tmp_path / "first.log", "worker") as first,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{settings.port}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=PATIENCE,
        ) as api,
    ):
        await ready(api)
        async with holding(fleet, last, HELD), fleet.admin(last) as watch:
            answer = await api.post("/migrations", json={}, headers={"Idempotency-Key": "release"})
            assert answer.status_code == 202, answer.text
            address = answer.headers["location"]
            following = asyncio.create_task(follow(api, address, told))
            await told_of(told, event="progress", done=2, wave="shared")
            await until(watch, f"SELECT EXISTS ({WAITING})")
            first.kill()
            await first.wait()
        assert (await api.get(address)).json()["status"] == "running"
        async with started(settings, tmp_path / "second.log", "worker") as second:
            await told_of(told, event="end", status="done", planned=3, done=3, failed=0)
            await following
            second.send_signal(signal.SIGTERM)
            assert await second.wait() == 0, (tmp_path / "second.log").read_text()

        assert [event["wave"] for event in told if event["event"] == "wave"][-1] == "shared"
        again = await api.post("/migrations", json={}, headers={"Idempotency-Key": "release"})
        assert again.headers["location"] == address
        heard = await api.get(f"{address}/events", headers={"Last-Event-ID": told[-1]["id"]})
        assert heard.status_code == 204

        # Nobody takes the next one, so that its stream is open when the process ends.
        waiting: list[dict[str, Any]] = []
        address = (await api.post("/migrations", json={})).headers["location"]
        following = asyncio.create_task(follow(api, address, waiting))
        await told_of(waiting, event="progress", status="queued")
        serving.send_signal(signal.SIGTERM)
        await following
        assert await serving.wait() == 0
        assert "Traceback" not in (tmp_path / "serve.log").read_text()

    assert [await fleet.version(home) for home in (*homes, last)] == [3, 3, 3]
    async with fleet.databases.registry() as session:
        outcomes = (await session.scalars(select(RunHome.status))).all()
    assert outcomes == ["done"] * 3
