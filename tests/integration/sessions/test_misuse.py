"""Sessions in the hands of who means well: kept, shared, streamed from, or ended with SQL. They raise; no row is read
for nobody, and none for somebody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import BackgroundTasks
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError, MissingGreenlet, ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import ConfigurationError, ControlPlaneError
from control_plane.tenancy import TenantSession, tenant_context
from tests.integration.sessions.application import ADD, MODES, NAMES, World, engine_of
from tests.support.members import Member

ME = text("SELECT tenancy.current_tenant_id()")


async def owner_of_a_secret(world: World, mode: str) -> Member:
    acme = await world.members.add("acme", mode)
    async with world.sessions.open(acme.caller) as session:
        await session.execute(ADD, {"name": "secret"})
        await session.commit()
    return acme


@pytest.mark.parametrize("mode", MODES)
async def test_a_closed_session_leaves_its_tenant_to_nobody(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme = await owner_of_a_secret(world, mode)
    async with world.sessions.open(acme.caller) as session:
        for _ in range(2):  # the second needs no new connection
            await session.execute(NAMES)
    async with AsyncSession(engine_of(world.sessions)) as nobody_s:
        with pytest.raises(ControlPlaneError, match="not for a tenant"):
            await nobody_s.execute(NAMES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
async def test_a_transaction_that_ended_as_text_is_not_gone_on_with(
    world: World, client: httpx.AsyncClient, mode: str, ending: str
) -> None:
    acme = await owner_of_a_secret(world, mode)
    async with world.sessions.open(acme.caller) as session:
        await session.execute(NAMES)
        await session.execute(text(ending))
        with pytest.raises(ControlPlaneError, match="ended by a statement"):
            await session.execute(NAMES)
        await session.rollback()
        assert list(await session.scalars(NAMES)) == ["secret"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_connection_of_a_session_is_bound_in_each_transaction(
    world: World, client: httpx.AsyncClient, mode: str
) -> None:
    acme = await owner_of_a_secret(world, mode)
    async with world.sessions.open(acme.caller) as session:
        connection = await session.connection()
        assert await connection.scalar(ME) == acme.id
        await connection.commit()
        assert await connection.scalar(ME) == acme.id
        async with connection.begin_nested() as savepoint:
            await savepoint.rollback()
        assert list(await connection.scalars(NAMES)) == ["secret"]
        await session.close()
        with pytest.raises(ResourceClosedError):
            await connection.scalar(ME)


async def test_a_session_has_no_engine_to_be_kept_beyond_it(world: World, client: httpx.AsyncClient) -> None:
    acme = await owner_of_a_secret(world, "shared")
    async with world.sessions.open(acme.caller) as session:
        assert session.bind is None
        kept = session.get_bind()
        await session.execute(NAMES)

    def read(_: Any) -> Any:
        with kept.connect() as connection:  # type: ignore[union-attr]
            return connection.scalars(NAMES).all()

    async with AsyncSession(engine_of(world.sessions)) as nobody_s:
        with pytest.raises(ControlPlaneError, match="not for a tenant"):
            await nobody_s.run_sync(read)


async def test_neither_threads_nor_synchronous_code_get_rows(world: World, client: httpx.AsyncClient) -> None:
    acme = await owner_of_a_secret(world, "shared")
    async with world.sessions.open(acme.caller) as session:
        await session.execute(NAMES)

        def read() -> None:
            with pytest.raises(MissingGreenlet):
                session.sync_session.execute(NAMES)

        await asyncio.to_thread(read)
        read()
        await session.rollback()
        assert list(await session.scalars(NAMES)) == ["secret"]


async def test_two_tasks_with_one_session_never_read_for_another(world: World, client: httpx.AsyncClient) -> None:
    acme, other = await owner_of_a_secret(world, "shared"), await world.members.add("other")

    async def read(session: AsyncSession) -> list[str]:
        return list(await session.scalars(NAMES))

    async with world.sessions.open(acme.caller) as session:
        outcomes = await asyncio.gather(*(read(session) for _ in range(4)), return_exceptions=True)
    assert any(isinstance(outcome, Exception) for outcome in outcomes)
    assert all(outcome == ["secret"] for outcome in outcomes if not isinstance(outcome, BaseException))
    async with world.sessions.open(other.caller) as session:
        assert await read(session) == []


@pytest.mark.parametrize("mode", MODES)
async def test_nothing_is_streamed_after_the_endpoint(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme = await owner_of_a_secret(world, mode)
    raised: list[BaseException] = []

    async def names(session: AsyncSession) -> AsyncIterator[str]:
        try:
            async for name in await session.stream_scalars(NAMES):
                yield name
        except InvalidRequestError as error:
            raised.append(error)

    @world.app.get("/streamed")
    async def streamed(session: TenantSession) -> StreamingResponse:
        await session.execute(NAMES)
        return StreamingResponse(names(session))

    answer = await client.get("/streamed", headers=world.token(acme))
    assert (answer.text, len(raised)) == ("", 1)


async def test_a_task_that_outlives_its_request_gets_nothing(world: World, client: httpx.AsyncClient) -> None:
    acme = await owner_of_a_secret(world, "shared")
    tasks: list[asyncio.Task[Any]] = []

    async def later(session: AsyncSession) -> Any:
        await asyncio.sleep(0.05)
        return (await session.scalars(NAMES)).all()

    @world.app.post("/forget")
    async def forget(session: TenantSession, background: BackgroundTasks) -> None:
        await session.execute(NAMES)
        tasks.append(asyncio.create_task(later(session)))

    await client.post("/forget", headers=world.token(acme))
    with pytest.raises(InvalidRequestError):
        await tasks[0]


@pytest.mark.parametrize(
    ("tenant", "roles", "message"),
    [
        (7, (), "a tenant and a user"),
        (b"acme", (), "a tenant and a user"),
        ("acme", "admin", "list of names"),  # would be the roles a, d, m, i and n
        ("acme", [None], "list of names"),
    ],
)
async def test_a_job_s_tenant_and_roles_are_of_the_right_kind(
    world: World, client: httpx.AsyncClient, tenant: Any, roles: Any, message: str
) -> None:
    await world.members.add("acme")
    with pytest.raises(ConfigurationError, match=message):
        async with tenant_context(tenant, uuid4(), roles, of=world.app):
            pass


async def test_a_job_needs_an_application_or_settings(world: World) -> None:
    with pytest.raises(ConfigurationError, match="no tenancy"):
        async with tenant_context("acme", uuid4(), of=None):  # type: ignore[arg-type]
            pass


async def test_a_job_on_another_loop_is_told_so(world: World, client: httpx.AsyncClient) -> None:
    await world.members.add("acme")
    raised: list[BaseException] = []

    async def job() -> None:
        async with tenant_context("acme", uuid4(), of=world.app):
            pass

    def run() -> None:
        try:
            asyncio.run(job())
        except ConfigurationError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "another event loop" in str(raised[0])
