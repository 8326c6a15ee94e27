"""Take out one guard of the request path and the test that watches it must go red."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from control_plane.pools import gate, requests
from control_plane.pools.requests import RequestPools
from control_plane.pools.session_state import ResetConnection
from control_plane.pools.sessions import TenantSessions
from control_plane.settings import Settings
from tests.integration import test_gate, test_request_pools
from tests.integration.sessions import test_binding, test_connections
from tests.integration.sessions.application import World
from tests.support.members import Members
from tests.support.mutation import mutated

RED = (AssertionError, pytest.fail.Exception)


@pytest.fixture
def opened(members: Members) -> Callable[..., Any]:
    return test_request_pools.opening(members)


@pytest.fixture
def world(members: Members, settings: Settings) -> World:
    return World(members, settings.model_copy(update={"shared_pool_size": 1}))


@pytest_asyncio.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.running() as running:
        yield running


async def test_a_pool_that_lends_open_transactions_is_noticed(members: Members, pools: RequestPools) -> None:
    """Attack 36: `an open transaction goes to the next request`."""
    with mutated(requests._reusable, "or connection.is_in_transaction()", ""), pytest.raises(RED):
        await test_request_pools.test_a_transaction_left_open_costs_the_connection(members, pools)


async def test_a_pool_that_lends_interrupted_connections_is_noticed(
    members: Members, opened: Callable[..., Any]
) -> None:
    """Attack 34: `an interrupted connection goes to the next request`."""
    with (
        mutated(requests._reusable, "error is None or isinstance(error, ControlPlaneError)", "True"),
        pytest.raises(RED),
    ):
        await test_request_pools.test_a_cancelled_request_leaves_no_statement_behind(members, opened)


async def test_a_home_that_may_take_the_whole_budget_is_noticed(members: Members, opened: Callable[..., Any]) -> None:
    """Attack 37: `one home may take every connection`."""
    with mutated(RequestPools._add_home, "min(size, budget.limit)", "budget.limit"), pytest.raises(RED):
        await test_request_pools.test_exhaustion_is_a_503_and_passes(members, opened)


async def test_an_inspection_that_finds_nothing_is_noticed(
    members: Members, pools: RequestPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks 28 and 29: `an inspection finds nothing`."""
    monkeypatch.setattr(requests, "INSPECT", "SELECT true")
    with pytest.raises(RED):
        await test_request_pools.test_an_inspection_ends_a_session_that_kept_state(
            members, pools, monkeypatch, "SELECT pg_advisory_lock(1)"
        )


async def test_an_identifier_that_is_not_escaped_is_noticed(members: Members) -> None:
    """Attack 31: `a quote ends the identifier`."""
    gate.one_statement.cache_clear()  # texts that were built before
    with mutated(gate.quoted, """.replace('"', '""')""", ""), pytest.raises(RED):
        await test_gate.test_names_are_quoted(members)
    gate.one_statement.cache_clear()


async def test_a_library_without_a_reset_is_noticed(members: Members, settings: Settings) -> None:
    """Attack 29: `a session of the library is not reset`."""
    check = test_connections.test_nothing_of_a_session_reaches_the_next_request
    with mutated(ResetConnection.get_reset_query, "DISCARD ALL", "SELECT 1"), pytest.raises(RED):
        await check(members, settings, "SET TimeZone = 'Asia/Tokyo'")


async def test_a_library_that_allows_autocommit_is_noticed(world: World, client: httpx.AsyncClient) -> None:
    """Attack 10: `AUTOCOMMIT outlives the context`."""
    with (
        mutated(TenantSessions._bind, 'get("isolation_level") == "AUTOCOMMIT"', 'get("isolation_level") is self'),
        pytest.raises(RED),
    ):
        await test_binding.test_autocommit_is_refused_since_nothing_could_bind_it(world, client, "shared")
