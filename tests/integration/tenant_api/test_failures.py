"""What the database does unexpectedly: what is tried again, and what a caller is told."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from control_plane.pools import gate, lists
from tests.integration.tenant_api.calls import as_, create, problem
from tests.support.members import Members


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
    reads, calls = lists.read_list, gate.call_function
    lost: list[str] = []

    def losing(original: Any, name: str) -> Any:
        async def lose(*arguments: Any, **options: Any) -> Any:
            result = await original(*arguments, **options)
            if name not in lost:
                lost.append(name)
                raise asyncpg.ConnectionDoesNotExistError("after the server has done its work")
            return result

        return lose

    monkeypatch.setattr(lists, "read_list", losing(reads, "read"))
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
