"""Migrations over HTTP: over ASGI, on a real server, with a worker in the same process where one is needed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import update

from control_plane.api.app import Application, create_app
from control_plane.api.events import Streams
from control_plane.pools.databases import Databases
from control_plane.registry import runs, template_versions
from control_plane.registry.models import Cluster, Run
from control_plane.service import ControlPlane
from control_plane.settings import Settings
from tests.integration.migrator.runs import add_conflicting_column
from tests.integration.test_platform_api import assert_problem
from tests.support.callers import client, open_plane, platform_headers
from tests.support.fleet import Fleet
from tests.support.templates import with_first_versions

RUN_FIELDS = {
    "id", "template", "target", "status", "wave", "wish", "reason", "planned", "done", "failed", "actor", "durable",
    "runner", "started_at", "heartbeat_at", "finished_at",
}  # fmt: skip
ONE_WAVE = {"waves": {"canaries": 0, "shares": [], "largest": 0}}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_first_versions(settings, tmp_path / "templates")


@pytest_asyncio.fixture
async def plane(settings: Settings, cluster: Cluster, databases: Databases) -> AsyncIterator[ControlPlane]:
    async with open_plane(settings) as opened:
        yield opened


@pytest.fixture
def fleet(plane: ControlPlane, databases: Databases, cluster: Cluster, installation_id: UUID) -> Fleet:
    return Fleet(databases, cluster, installation_id, plane.templates["reference"])


@pytest.fixture
def app(plane: ControlPlane) -> Application:
    return create_app(plane)


@pytest_asyncio.fixture
async def api(app: Application, plane: ControlPlane) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app, platform_headers(plane)) as opened:
        yield opened


@asynccontextmanager
async def working(plane: ControlPlane) -> AsyncIterator[None]:
    stop = asyncio.Event()
    worker = asyncio.create_task(plane.operations.run_worker(stop))
    try:
        yield
    finally:
        stop.set()
        await worker


async def start(api: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await api.post("/migrations", json=body)
    assert answer.status_code == 202, answer.text
    run: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/migrations/{run['id']}"
    return run


async def until(api: httpx.AsyncClient, run: dict[str, Any], *statuses: str) -> dict[str, Any]:
    """The run, once it has one of `statuses`."""
    while True:
        found: dict[str, Any] = (await api.get(f"/migrations/{run['id']}")).json()
        if found["status"] in statuses:
            return found
        await asyncio.sleep(0.02)


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append({**json.loads(lines["data"]), "id": lines["id"], "event": lines["event"]})
    return found


async def follow(api: httpx.AsyncClient, run: dict[str, Any], after: str | None = None) -> list[dict[str, Any]]:
    headers = {} if after is None else {"Last-Event-ID": after}
    answer = await api.get(f"/migrations/{run['id']}/events", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    return events(answer.text)


async def test_a_run_is_started_followed_and_shown(api: httpx.AsyncClient, plane: ControlPlane, fleet: Fleet) -> None:
    homes = [await fleet.add(f"acme-{mode}", mode) for mode in ("shared", "schema", "database")]
    await add_conflicting_column(fleet, bad := await fleet.add("bad"))
    run = await start(api, **ONE_WAVE)
    assert set(run) == RUN_FIELDS
    assert (run["status"], run["target"], run["planned"], run["durable"], run["runner"], run["actor"]) == (
        "queued", 3, 4, True, False, "tests",
    )  # fmt: skip
    async with working(plane):
        told = await follow(api, run)
    kinds = [event["event"] for event in told]
    assert kinds[0] == "progress"
    assert kinds[-1] == "end"
    assert kinds.count("home-failed") == kinds.count("end") == 1
    assert {event["run"] for event in told} == {run["id"]}
    (failed,) = (event for event in told if event["event"] == "home-failed")
    assert (failed["tenant"], failed["from"], failed["to"], failed["sqlstate"]) == ("bad", 1, 3, "42701")
    assert (told[-1]["status"], told[-1]["done"], told[-1]["failed"], told[-1]["planned"]) == ("failed", 3, 1, 4)

    assert [await fleet.version(home) for home in (*homes, bad)] == [3, 3, 3, 1]
    shown = (await api.get(f"/migrations/{run['id']}")).json()
    assert set(shown) == RUN_FIELDS | {"failures"}
    (group,) = shown["failures"]
    assert (shown["status"], group["sqlstate"], group["homes"], group["tenants"]) == ("failed", "42701", 1, ["bad"])
    assert shown["finished_at"] is not None

    # Who comes back hears what he has not heard.
    assert [event["event"] for event in await follow(api, run, failed["id"])][-2:] == ["progress", "end"]
    assert "home-failed" not in [event["event"] for event in await follow(api, run, failed["id"])]
    assert [event["event"] for event in await follow(api, run, "0.")] == ["home-failed", "progress", "end"]
    over = await api.get(f"/migrations/{run['id']}/events", headers={"Last-Event-ID": told[-1]["id"]})
    assert (over.status_code, over.content) == (204, b"")


async def test_a_dry_run_answers_the_plan_and_starts_nothing(api: httpx.AsyncClient, fleet: Fleet) -> None:
    home = await fleet.add("acme", "schema")
    await fleet.add("common", "shared")
    pin = {"reason": "a week of quiet", "expires_at": "2999-01-01T00:00:00Z"}
    assert_problem(await api.put("/tenants/acme/pin", json=pin), 400, "invalid_input")
    async with fleet.databases.registry.begin() as session:
        await template_versions.release(session, fleet.template, 1)
    answer = await api.post("/migrations", json={"target": 2, "dry_run": True})
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert (plan["template"], plan["target"], plan["homes"]) == ("reference", 2, 2)
    assert plan["groups"] == [
        {"cluster": "main", "isolation": isolation, "from": 1, "to": 2, "homes": 1, "tenants": 1, "owing": 0}
        for isolation in ("schema", "shared")
    ]
    assert [wave["name"] for wave in plan["waves"]] == ["canary", "shared"]
    assert (plan["pinned"], plan["unreached"]) == ([], [])
    assert (await api.get("/migrations")).json() == {"items": [], "next_cursor": None}
    assert await fleet.version(home) == 1


async def test_a_template_has_one_run_at_a_time(api: httpx.AsyncClient, fleet: Fleet) -> None:
    await fleet.add("acme")
    run = await start(api)
    refused = assert_problem(await api.post("/migrations", json={}), 409, "run_in_progress")
    assert run["id"] in refused["message"]
    assert refused["errors"] == [{"run": run["id"], "status": "queued"}]
    aborted = (await api.post(f"/migrations/{run['id']}/abort")).json()
    assert (aborted["status"], aborted["reason"]) == ("aborted", "it was aborted")
    await start(api)
    assert_problem(await api.post(f"/migrations/{run['id']}/resume"), 409, "run_in_progress")


async def test_of_requests_at_the_same_time_one_begins_a_run(api: httpx.AsyncClient, fleet: Fleet) -> None:
    await fleet.add("acme")
    answers = await asyncio.gather(*(api.post("/migrations", json={}) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409, 409]
    key = {"Idempotency-Key": "release-3"}
    winner = next(answer.json() for answer in answers if answer.status_code == 202)
    await api.post(f"/migrations/{winner['id']}/abort")
    answers = await asyncio.gather(*(api.post("/migrations", json={}, headers=key) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_the_same_idempotency_key_answers_the_same_run(
    api: httpx.AsyncClient, plane: ControlPlane, fleet: Fleet
) -> None:
    await fleet.add("acme")
    key = {"Idempotency-Key": "release-2"}
    body = {"target": 2, "internal": {"ring": "zero"}, "halt_rate": 0.1, "max_duration": 60}
    first, second = [await api.post("/migrations", json=body, headers=key) for _ in range(2)]
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert first.headers["location"] == second.headers["location"]
    other = await api.post("/migrations", json=body | {"target": 3}, headers=key)
    assert_problem(other, 409, "idempotency_key_reused")
    tenant = {"slug": "bcme", "name": "B", "isolation": "schema"}
    assert_problem(await api.post("/tenants", json=tenant, headers=key), 409, "idempotency_key_reused")
    somebody_else = key | platform_headers(plane, subject="somebody else")
    assert_problem(await api.post("/migrations", json=body, headers=somebody_else), 409, "run_in_progress")


async def test_a_run_is_paused_resumed_and_aborted(api: httpx.AsyncClient, plane: ControlPlane, fleet: Fleet) -> None:
    homes = [await fleet.add(f"acme-{number}") for number in range(3)]
    run = await start(api, approve=True, waves={"canaries": 1, "shares": [], "largest": 0})
    async with working(plane):
        while (waiting := await until(api, run, "paused"))["done"] == 0:
            await asyncio.sleep(0.02)  # outcomes are written in batches
        assert (waiting["wish"], waiting["runner"], waiting["done"]) == ("pause", True, 1)
        assert (await api.post(f"/migrations/{run['id']}/resume")).json()["wish"] is None
        done = await until(api, run, "done")
        assert (done["done"], done["runner"]) == (3, False)
    for verb in ("pause", "abort", "resume"):
        assert_problem(await api.post(f"/migrations/{run['id']}/{verb}"), 409, "run_finished")
    assert [await fleet.version(home) for home in homes] == [3, 3, 3]


async def test_a_run_that_halted_is_resumed_by_a_worker(
    api: httpx.AsyncClient, plane: ControlPlane, fleet: Fleet
) -> None:
    home = await fleet.add("acme")
    run = await start(api, max_duration=1)
    async with fleet.databases.registry.begin() as session:
        await session.execute(update(Run).values(deadline_at=Run.started_at))
    async with working(plane):
        halted = await until(api, run, "halted")
        assert (halted["reason"], await fleet.version(home)) == ("its time is up", 1)
        async with fleet.databases.registry.begin() as session:
            await session.execute(update(Run).values(options={}))
        resumed = (await api.post(f"/migrations/{run['id']}/resume")).json()
        assert (resumed["status"], resumed["durable"], resumed["reason"]) == ("queued", True, None)
        assert (await until(api, run, "done"))["done"] == 1
    assert await fleet.version(home) == 3


async def test_runs_are_listed_the_newest_first_and_in_pages(api: httpx.AsyncClient, fleet: Fleet) -> None:
    for target in (1, 2, 3):
        async with fleet.databases.registry.begin() as session:
            run = await runs.start_run(session, "reference", target, 0, actor="tests", options={}, durable=True)
            await runs.finish_run(session, run.id, "halted" if target == 2 else "aborted")
    seen, query = [], "/migrations?limit=2"
    while query:
        page = await api.get(query)
        seen += [run["target"] for run in page.json()["items"]]
        assert ("next" in page.links) == (page.json()["next_cursor"] is not None)
        query = page.links["next"]["url"] if "next" in page.links else ""
    assert seen == [3, 2, 1]

    async def filtered(**filters: str) -> list[int]:
        return [run["target"] for run in (await api.get("/migrations", params=filters)).json()["items"]]

    assert await filtered(status="halted") == [2]
    assert await filtered(template="reference", status="aborted") == [3, 1]
    assert await filtered(template="other") == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"template": "none"}, 404, "template_not_found"),
        ({"target": 99}, 404, "template_not_found"),
        ({"target": 0}, 400, "invalid_input"),
        ({"only": ["nobody"]}, 404, "tenant_not_found"),
        ({"only": ["a,b"]}, 400, "invalid_input"),
        ({"only": ["common"]}, 400, "bad_request"),
        ({"halt_rate": 1.5}, 400, "invalid_input"),
        ({"max_duration": "2h"}, 400, "invalid_input"),
        ({"override_sunset": " "}, 400, "invalid_input"),
        ({"waves": {"shares": [0.5, 0.1]}}, 400, "invalid_input"),
        ({"waves": {"surprise": 1}}, 400, "invalid_input"),
        ({"internal": {"": "x"}}, 400, "invalid_input"),
        ({"surprise": True}, 400, "invalid_input"),
    ],
)
async def test_what_cannot_run_is_refused_before_anything_is_recorded(
    api: httpx.AsyncClient, fleet: Fleet, body: dict[str, Any], status: int, code: str
) -> None:
    await fleet.add("common", "shared")
    for dry_run in (False, True):
        assert_problem(await api.post("/migrations", json=body | {"dry_run": dry_run}), status, code)
    assert (await api.get("/migrations")).json()["items"] == []


@pytest.mark.parametrize("query", ["limit=0", "cursor=!", "cursor=YWJj", "status=odd", "template=%00"])
async def test_a_list_of_runs_refuses_what_it_does_not_understand(api: httpx.AsyncClient, query: str) -> None:
    assert_problem(await api.get(f"/migrations?{query}"), 400, "invalid_input")


async def test_unknown_runs_are_not_found(api: httpx.AsyncClient) -> None:
    for path in ("", "/events"):
        assert_problem(await api.get(f"/migrations/{uuid4()}{path}"), 404, "run_not_found")
    for verb in ("pause", "resume", "abort"):
        assert_problem(await api.post(f"/migrations/{uuid4()}/{verb}"), 404, "run_not_found")
    assert_problem(await api.get("/migrations/last"), 400, "invalid_input")


@pytest.mark.parametrize("last", ["x", ".", "-1.", "1", "9" * 30 + "."])
async def test_an_event_id_of_something_else_is_refused(api: httpx.AsyncClient, fleet: Fleet, last: str) -> None:
    run = await start(api)
    answer = await api.get(f"/migrations/{run['id']}/events", headers={"Last-Event-ID": last})
    assert_problem(answer, 400, "invalid_input")


async def test_streams_are_few_and_end_when_the_process_drains(
    app: Application, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = Streams(most=1)
    monkeypatch.setattr(app.state, "streams", streams)
    monkeypatch.setattr(app, "_streams", streams)
    run = await start(api)
    first = asyncio.create_task(api.get(f"/migrations/{run['id']}/events"))
    while not streams._open:
        await asyncio.sleep(0.01)
    refused = await api.get(f"/migrations/{run['id']}/events")
    assert_problem(refused, 503, "too_many_streams")
    assert refused.headers["retry-after"] == "5"
    app.end_streams()
    assert [event["event"] for event in events((await first).text)] == ["progress"]
    assert streams._open == 0


async def test_a_stream_ends_when_its_token_is_taken_back(
    app: Application, api: httpx.AsyncClient, plane: ControlPlane
) -> None:
    run = await start(api)
    leaving = platform_headers(plane, subject="leaving")
    stream = asyncio.create_task(api.get(f"/migrations/{run['id']}/events", headers=leaving))
    while not app.state.streams._open:
        await asyncio.sleep(0.01)
    assert (await api.post("/revocations", json={"kind": "subject", "subject": "leaving"})).status_code == 201
    assert [event["event"] for event in events((await stream).text)] == ["progress"]


async def test_a_quiet_stream_says_that_it_is_alive(
    app: Application, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.api.migration_events.QUIET", 0.01)
    monkeypatch.setattr("control_plane.api.migration_events.SECONDS", 0.02)
    run = await start(api)
    stream = asyncio.create_task(api.get(f"/migrations/{run['id']}/events"))
    await asyncio.sleep(0.3)
    assert (await api.post(f"/migrations/{run['id']}/abort")).status_code == 200
    text = (await stream).text
    assert ": alive\n\n" in text
    assert [event["event"] for event in events(text)] == ["progress", "progress", "end"]
    assert events(text)[-1]["status"] == "aborted"


@pytest.mark.parametrize("isolation", ["schema", "database"])
async def test_a_tenant_is_pinned_over_http(api: httpx.AsyncClient, fleet: Fleet, isolation: str) -> None:
    await fleet.add("acme", isolation, version=2)
    assert_problem(await api.get("/tenants/acme/pin"), 404, "pin_not_found")
    soon = (await api.get("/tenants/acme")).json()["created_at"].replace("2026", "2027")
    assert_problem(
        await api.put("/tenants/acme/pin", json={"reason": "audit", "expires_at": soon}), 400, "invalid_input"
    )
    body = {"version": 2, "reason": "audit", "expires_at": _tomorrow()}
    put = await api.put("/tenants/acme/pin", json=body)
    assert put.status_code == 200, put.text
    assert (put.json()["version"], put.json()["at"], put.json()["actor"]) == (2, 2, "tests")
    assert (await api.get("/tenants/acme/pin")).json() == put.json()
    assert_problem(await api.post("/migrations", json={"only": ["acme"]}), 409, "tenant_pinned")
    plan = (await api.post("/migrations", json={"dry_run": True})).json()
    assert [(home["tenant"], home["pin"], home["reason"]) for home in plan["pinned"]] == [("acme", 2, "audit")]
    assert (await api.delete("/tenants/acme/pin")).status_code == 204
    assert_problem(await api.delete("/tenants/acme/pin"), 404, "pin_not_found")


async def test_a_shared_tenant_is_not_pinned(api: httpx.AsyncClient, fleet: Fleet) -> None:
    await fleet.add("common", "shared")
    body = {"reason": "audit", "expires_at": _tomorrow()}
    assert_problem(await api.put("/tenants/common/pin", json=body), 400, "not_pinnable")
    assert_problem(await api.put("/tenants/nobody/pin", json=body), 404, "tenant_not_found")


def _tomorrow() -> str:
    from datetime import UTC, datetime, timedelta

    return (datetime.now(UTC) + timedelta(days=1)).isoformat()
