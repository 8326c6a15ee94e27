"""No statement of a session runs unless its connection is bound to a tenant."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import ControlPlaneError
from tests.integration.sessions.application import MODES, NAMES, World, engine_of


@pytest.mark.parametrize("mode", MODES)
async def test_without_a_tenant_no_statement_runs(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme = await world.members.add("acme", mode)
    await client.post("/names", params={"name": "secret"}, headers=world.token(acme))
    async with AsyncSession(engine_of(world.sessions)) as session:
        with pytest.raises(ControlPlaneError, match="not for a tenant"):
            await session.execute(NAMES)
    async with world.sessions.open(acme.caller._replace(tenant_id=None)) as session:  # type: ignore[arg-type]
        with pytest.raises(ControlPlaneError):
            await session.execute(NAMES)
    async with world.sessions.open(acme.caller._replace(user_id=None)) as session:
        with pytest.raises(DBAPIError, match="needs a tenant and a user"):
            await session.execute(NAMES)


@pytest.mark.parametrize("mode", MODES)
async def test_a_connection_taken_from_the_session_s_engine_is_bound_too(
    world: World, client: httpx.AsyncClient, mode: str
) -> None:
    acme = await world.members.add("acme", mode)
    await client.post("/names", params={"name": "mine"}, headers=world.token(acme))
    async with world.sessions.open(acme.caller) as session:

        def take(_: Any) -> list[str]:
            with session.get_bind().connect() as connection:  # type: ignore[union-attr]
                assert connection.scalar(text("SELECT tenancy.current_tenant_id()")) == acme.id
                return list(connection.scalars(NAMES))

        assert await session.run_sync(take) == ["mine"]


@pytest.mark.parametrize("mode", MODES)
async def test_autocommit_is_refused_since_nothing_could_bind_it(
    world: World, client: httpx.AsyncClient, mode: str
) -> None:
    acme = await world.members.add("acme", mode)
    async with world.sessions.open(acme.caller) as session:
        for _ in range(2):
            with pytest.raises(ControlPlaneError, match="AUTOCOMMIT"):
                await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        assert list(await session.scalars(NAMES)) == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_connection_that_could_not_be_bound_runs_nothing(
    world: World, client: httpx.AsyncClient, mode: str
) -> None:
    acme = await world.members.add("acme", mode)
    await client.post("/names", params={"name": "secret"}, headers=world.token(acme))
    await world.members.set_state(acme, "suspended")
    async with world.sessions.open(acme.caller) as session:

        def insist(_: Any) -> None:
            for options in ({}, {"isolation_level": "AUTOCOMMIT"}):
                connection = session.get_bind().connect().execution_options(**options)  # type: ignore[union-attr]
                with pytest.raises((DBAPIError, ControlPlaneError)):
                    connection.scalars(NAMES)
                with pytest.raises(ResourceClosedError):
                    connection.scalars(NAMES)

        await session.run_sync(insist)
