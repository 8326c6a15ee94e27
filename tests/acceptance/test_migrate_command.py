"""`control-plane migrate-all` as a process: what it prints, its exit codes, and kill -9."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from control_plane.pools.databases import Databases
from control_plane.registry import template_versions
from control_plane.registry.models import Cluster, Home, Run, RunHome
from control_plane.settings import Settings
from control_plane.templates import Templates
from tests.support.fleet import Fleet
from tests.support.program import settings_environment
from tests.support.templates import with_first_versions


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_first_versions(settings, tmp_path / "templates")


@pytest.fixture
def fleet(databases: Databases, cluster: Cluster, installation_id: UUID, settings: Settings) -> Fleet:
    return Fleet(databases, cluster, installation_id, Templates.load(settings.templates)["reference"])


async def start(fleet: Fleet, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "control_plane",
        *arguments,
        env=settings_environment(fleet.databases.settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def call(fleet: Fleet, *arguments: str) -> tuple[int | None, str, str]:
    process = await start(fleet, *arguments)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def break_home(fleet: Fleet, home: Home) -> None:
    async with fleet.admin(home) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE cp_owner")
        await connection.execute(f'ALTER TABLE "{home.schema_name}".tb_user ADD COLUMN bio text')


async def test_the_fleet_is_migrated_and_a_second_run_has_nothing_to_do(fleet: Fleet) -> None:
    for mode in ("shared", "schema", "database"):
        await fleet.add(f"acme-{mode}", mode)
    code, out, _ = await call(fleet, "migrate-all", "--plan")
    assert code == 0
    assert "main: 1 database homes (1 tenants) from version 1 to 3" in out
    code, out, err = await call(fleet, "migrate-all")
    assert (code, err) == (0, "")
    assert "done: 3 homes migrated to version 3" in out
    assert (await call(fleet, "migrate-all")) == (0, "nothing to do: 3 homes at version 3\n", "")
    code, out, _ = await call(fleet, "migrate", "status", "--json")
    assert code == 0
    assert {(each["isolation"], each["version"]) for each in json.loads(out)["versions"]} == {
        ("shared", 3),
        ("schema", 3),
        ("database", 3),
    }
    assert (await call(fleet, "migrate-all", "--to", "2"))[0] == 2


async def test_a_plan_tells_what_a_new_version_locks(fleet: Fleet) -> None:
    await fleet.add("acme", version=1)
    async with fleet.databases.registry.begin() as session:
        await template_versions.release(session, fleet.template, 1)
    code, out, err = await call(fleet, "migrate-all", "--plan", "--to", "2")
    assert (code, err) == (0, "")
    assert out.splitlines()[-5:] == [
        "0002_profiles locks, until it is done:",
        "  tb_project: ACCESS EXCLUSIVE",
        "  tb_user: ACCESS EXCLUSIVE",
        "  v_project: ACCESS EXCLUSIVE",
        "  v_user: ACCESS EXCLUSIVE",
    ]
    (plan,) = events((await call(fleet, "migrate-all", "--plan", "--to", "2", "--json"))[1])
    (locks,) = plan["locks"]
    assert (locks["version"], locks["name"]) == (2, "0002_profiles")
    assert locks["locks"][0] == {
        "relation": "tb_project", "mode": "ACCESS EXCLUSIVE", "file": "0002_profiles/expand.sql", "rewritten": False,
        "scans": 0,
    }  # fmt: skip


async def test_a_failed_home_is_named_with_its_reason_and_the_exit_code_is_1(fleet: Fleet) -> None:
    await break_home(fleet, await fleet.add("bad"))
    await fleet.add("good")
    code, out, _ = await call(fleet, "migrate-all", "--json")
    assert code == 1
    plan, started, wave, *homes, run = events(out)
    assert (started["run"], wave["event"]) == (run["run"], "wave")
    assert (plan["event"], plan["homes"], plan["groups"][0]["from"]) == ("plan", 2, 1)
    assert {home["tenant"]: home["status"] for home in homes} == {"bad": "failed", "good": "done"}
    assert set(homes[0]) == {
        "event", "cluster", "tenant", "home", "isolation", "from", "to", "reached", "status", "sqlstate",
        "error", "milliseconds", "attempts", "rows", "objects",
    }  # fmt: skip
    assert (run["event"], run["status"], run["done"], run["failed"], run["left"]) == ("run", "failed", 1, 1, 0)
    code, out, _ = await call(fleet, "migrate-all")
    assert code == 1
    reason = (
        'column "bio" of relation "tb_user" already exists: found text, wanted text NOT NULL DEFAULT \'\'::text'
        " (0002_profiles/expand.sql) [42701]"
    )
    assert f"failed: bad on main stays at version 1: {reason}" in out


async def test_only_takes_several_slugs(fleet: Fleet) -> None:
    homes = [await fleet.add(slug) for slug in ("one", "two", "three")]
    code, _, _ = await call(fleet, "migrate-all", "--only", "one", "two")
    assert code == 0
    assert [await fleet.version(home) for home in homes] == [3, 3, 1]
    assert (await call(fleet, "migrate-all", "three"))[0] == 2
    assert await fleet.version(homes[2]) == 1


async def test_an_interrupt_drains_and_exits_3(fleet: Fleet) -> None:
    for number in range(30):
        await fleet.add(f"acme-{number}")
    process = await start(fleet, "migrate-all", "--json", "--concurrency", "1")
    assert process.stdout is not None
    lines: list[bytes] = []
    while not lines or json.loads(lines[-1])["event"] != "home":
        lines.append(await process.stdout.readline())
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, err) == (3, b"")
    *said, run = events((b"".join(lines) + out).decode())
    homes = [event for event in said if event["event"] == "home"]
    assert run["status"] == "halted"
    assert all(home["status"] == "done" for home in homes)
    assert len(homes) == run["done"] == 30 - run["left"] < 30


_STATE = """
SELECT version,
       (SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass(schema_name || '.tb_user')
        AND attname = 'bio') AS version_2,
       (to_regclass(schema_name || '__api_v2.projects') IS NOT NULL)::int AS version_3
FROM tenancy.homes
"""


async def test_a_killed_run_leaves_nothing_half_applied_and_the_next_one_completes_it(fleet: Fleet) -> None:
    homes = [await fleet.add(f"acme-{number}") for number in range(30)]
    process = await start(fleet, "migrate-all")
    async with fleet.admin() as watch:
        while not await watch.fetchval("SELECT count(*) >= 5 FROM tenancy.homes WHERE version = 3"):
            assert process.returncode is None, await process.communicate()
        process.kill()
        await process.communicate()
        # The server finishes or undoes what it had received.
        while await watch.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'control-plane migrate'"
            " AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)
        states = {tuple(row) for row in await watch.fetch(_STATE)}
    assert states == {(1, 0, 0), (3, 1, 1)}

    code, out, _ = await call(fleet, "migrate-all")
    assert code == 0
    assert re.search(r"done: \d+ homes migrated to version 3", out)
    assert [await fleet.version(home) for home in homes] == [3] * 30
    assert [await fleet.copied_version(home) for home in homes] == [3] * 30
    async with fleet.databases.registry() as session:
        runs = (await session.scalars(select(Run).order_by(Run.started_at))).all()
        recorded = (await session.scalars(select(RunHome.home_id).where(RunHome.status == "done"))).all()
    assert [run.status for run in runs] == ["halted", "done"]
    assert len(recorded) == len(set(recorded)), "no home was migrated twice"


async def test_a_run_waits_for_approval_and_another_command_lets_it_go_on(fleet: Fleet) -> None:
    await fleet.add("acme")
    await fleet.add("common", "shared")
    process = await start(fleet, "migrate-all", "--json", "--approve")
    assert process.stdout is not None
    said: list[dict[str, Any]] = []
    while not said or said[-1]["event"] != "waiting":
        said.append(json.loads(await process.stdout.readline()))
    assert [event["event"] for event in said] == ["plan", "started", "wave", "home", "waiting"]
    reference = said[1]["run"][:8]
    code, out, err = await call(fleet, "migrate", "resume", reference)
    assert (code, err) == (0, "")
    assert said[1]["run"] in out
    rest, err = (each.decode() for each in await process.communicate())
    assert (process.returncode, err) == (0, "")
    assert [(event["event"], event["status"]) for event in events(rest) if "status" in event] == [
        ("home", "done"),
        ("run", "done"),
    ]
    code, out, _ = await call(fleet, "migrate", "watch", reference, "--json")
    assert (code, json.loads(out)["status"]) == (0, "done")
    assert (await call(fleet, "migrate", "pause", "last"))[0] == 2


async def test_a_pinned_tenant_stays_and_the_fleet_is_shown_with_it(fleet: Fleet) -> None:
    await break_home(fleet, await fleet.add("bad"))
    home = await fleet.add("acme", "database")
    await fleet.add("common", "shared")
    because = "in the middle of its audit"
    pin = ("fleet", "pin", "acme", "--version", "2", "--reason", because, "--expires", "30d", "--json")
    code, out, err = await call(fleet, *pin)
    assert (code, err) == (0, "")
    assert (json.loads(out)["tenant"], json.loads(out)["version"]) == ("acme", 2)
    code, out, _ = await call(fleet, "migrate-all", "--plan")
    assert "main: 1 database homes (1 tenants) from version 1 to 2" in out
    assert re.search(r"^acme is pinned to version 2 until .* UTC: in the middle of its audit$", out, re.MULTILINE)

    code, out, _ = await call(fleet, "migrate-all", "--json")
    assert code == 1, "because of the home that cannot go"
    assert [each["tenant"] for each in events(out)[0]["pinned"]] == ["acme"]
    assert await fleet.version(home) == 2

    code, out, _ = await call(fleet, "fleet")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[:4] == [
        ["cluster", "template", "isolation", "v1", "v2", "v3", "target", "behind"],
        ["main", "reference", "database", "1", "3", "1"],
        ["main", "reference", "schema", "1", "3", "2"],
        ["main", "reference", "shared", "1", "3", "0"],
    ]
    assert "failed: bad on main stays at version 1: column" in out
    assert re.search(r"^pinned: acme to version 2 until .*: in the middle of its audit$", out, re.MULTILINE)
    shown = json.loads((await call(fleet, "fleet", "--json"))[1])
    assert set(shown) == {"versions", "skews", "unreached", "failed", "pinned"}
    assert {skew["isolation"]: skew["behind"] for skew in shown["skews"]} == {"database": 1, "schema": 2, "shared": 0}
    assert [(each["tenant"], each["sqlstate"]) for each in shown["failed"]] == [("bad", "42701")]

    assert (await call(fleet, "fleet", "unpin", "acme"))[1] == "acme is not pinned any more.\n"
    assert (await call(fleet, "fleet", "pins"))[1] == "No tenant is pinned.\n"
