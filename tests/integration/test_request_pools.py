"""Connections for requests: whose they are, how many, and what becomes of broken ones."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from control_plane.errors import ClusterUnavailable, PoolExhausted, StaleEpoch, Unavailable
from control_plane.pools import gate, lists
from control_plane.pools import requests as request_pools
from control_plane.pools.listing import Listing, Shape, Sort
from control_plane.pools.requests import RequestPools
from control_plane.registry.models import Cluster
from tests.support.members import Member, Members
from tests.support.proxy import open_proxy
from tests.support.servers import Server

LISTING = Listing(Shape((Sort("created_at", "timestamptz"), Sort("id", "uuid"))), limit=10)


@pytest.fixture
def opened(members: Members) -> Callable[..., Any]:
    """Pools with other settings: `async with opened(shared_pool_size=2) as pools`."""
    return opening(members)


def opening(members: Members) -> Callable[..., Any]:
    @asynccontextmanager
    async def open_pools(**changes: object) -> AsyncIterator[RequestPools]:
        pools = RequestPools(members.databases, members.databases.settings.model_copy(update=changes))
        try:
            yield pools
        finally:
            await pools.aclose()

    return open_pools


async def read(pools: RequestPools, member: Member, pause: float = 0.0) -> set[str]:
    async with pools.connection(member.placement) as connection:
        if pause:
            await connection.execute(f"SELECT pg_sleep({pause})")
        return await read_on(connection, member)


async def read_on(connection: asyncpg.Connection, member: Member) -> set[str]:
    page = await lists.read_list(connection, member.caller, member.home.schema_name, 1, "projects", LISTING)
    return {document["name"] for document in json.loads(page.body or b"")}


async def create(pools: RequestPools, member: Member, name: str) -> None:
    async with pools.connection(member.placement) as connection:
        document = json.dumps({"name": name})
        await gate.call_function(connection, member.caller, member.home.schema_name, 1, "create_project", document)


async def settle(pools: RequestPools) -> None:
    """Wait for connections that are being closed."""
    while pools._tasks:
        await asyncio.gather(*pools._tasks)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def until_sleeping(members: Members, member: Member) -> None:
    """Wait for a statement of the home's role to be running."""
    query = "SELECT true FROM pg_stat_activity WHERE usename = $1 AND query LIKE '%pg_sleep%' AND state = 'active'"
    async with members.databases.admin(members.cluster) as admin:
        while not await admin.fetchval(query, member.home.role_name):
            await asyncio.sleep(0.01)


async def sessions(members: Members, member: Member) -> int:
    async with members.databases.admin(members.cluster) as admin:
        count: int = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", member.home.role_name
        )
    return count


@pytest.mark.parametrize("mode", ["shared", "schema", "database"])
async def test_a_request_connects_as_the_login_role_of_its_home(
    members: Members, pools: RequestPools, mode: str
) -> None:
    member = await members.add("acme", mode)
    async with pools.connection(member.placement) as connection:
        row = await connection.fetchrow(
            "SELECT session_user, current_user, current_database(), current_setting('jit'), current_setting('TimeZone')"
        )
        assert row is not None
        assert tuple(row) == (member.home.role_name, member.home.role_name, member.home.database, "off", "UTC")
    assert pools.open_connections(members.cluster.id) == 1


async def test_a_read_is_one_round_trip(server: Server, members: Members, pools: RequestPools) -> None:
    member = await members.add("acme")
    async with open_proxy(server) as proxy:
        async with members.databases.registry.begin() as session:
            cluster = await session.get_one(Cluster, members.cluster.id)
            cluster.dsn = members.databases.box.seal(proxy.dsn)
        await read(pools, member)  # connects and prepares
        await create(pools, member, "one")
        proxy.clear()
        assert await read(pools, member) == {"one"}
        assert proxy.sent == ["B", "E", "S"]
        proxy.clear()
        await create(pools, member, "two")
        assert proxy.sent == ["B", "E", "S"]
        assert proxy.round_trips == 1
        await pools.aclose()


async def test_interleaved_requests_of_two_tenants_never_mix(members: Members, opened: Callable[..., Any]) -> None:
    # attack 34
    tenants = [await members.add("acme"), await members.add("other")]
    async with opened(shared_pool_size=2, acquire_timeout=30.0) as pools:
        for member in tenants:
            await create(pools, member, member.tenant.slug)

        async def ask(member: Member) -> None:
            assert await read(pools, member) == {member.tenant.slug}

        await asyncio.gather(*(ask(member) for _ in range(200) for member in tenants))
        assert pools.open_connections(members.cluster.id) == 2


async def test_cancels_timeouts_and_terminated_backends_never_mix_or_stick(
    members: Members, opened: Callable[..., Any]
) -> None:
    # attack 34, with the pool being broken all the time
    tenants = [await members.add("acme"), await members.add("other")]
    dice = random.Random(34)
    async with opened(shared_pool_size=2, acquire_timeout=30.0) as pools:
        for member in tenants:
            await create(pools, member, member.tenant.slug)

        async def ask(member: Member, pause: float) -> None:
            with suppress(asyncpg.PostgresError, ConnectionError):
                try:
                    assert await read(pools, member, pause) == {member.tenant.slug}
                except asyncpg.InterfaceError as error:
                    misused.extend([] if "closed" in str(error) else [error])  # another operation is in progress

        misused: list[Exception] = []

        async def disturb(task: asyncio.Task[None]) -> None:
            await asyncio.sleep(dice.uniform(0, 0.2))
            task.cancel()

        async def terminate() -> None:
            async with members.databases.admin(members.cluster) as admin:
                for _ in range(8):
                    await asyncio.sleep(0.03)
                    await admin.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 LIMIT 1",
                        tenants[0].home.role_name,
                    )

        tasks = [
            asyncio.create_task(ask(dice.choice(tenants), dice.choice((0.0, 0.0, 0.005, 0.02)))) for _ in range(200)
        ]
        others = [disturb(task) for task in dice.sample(tasks, 60)]
        results = await asyncio.gather(*tasks, *others, terminate(), return_exceptions=True)
        assert [result for result in results if isinstance(result, AssertionError)] == []
        assert misused == []
        await settle(pools)
        for member in tenants * 2:  # both slots work again
            assert await read(pools, member) == {member.tenant.slug}
        assert pools.open_connections(members.cluster.id) <= 2
        assert await sessions(members, tenants[0]) <= 2


async def test_a_cancelled_request_leaves_no_statement_behind(members: Members, opened: Callable[..., Any]) -> None:
    member = await members.add("acme")
    async with opened(shared_pool_size=1) as pools:
        async with pools.connection(member.placement) as connection:
            pid = connection.get_server_pid()
        running = asyncio.create_task(read(pools, member, pause=30))
        await until_sleeping(members, member)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        async with pools.connection(member.placement) as connection:  # waits until the slot is free
            assert connection.get_server_pid() != pid
        assert await sessions(members, member) == 1


async def test_a_transaction_left_open_costs_the_connection(members: Members, pools: RequestPools) -> None:
    # attack 36
    member = await members.add("acme")
    async with pools.connection(member.placement) as connection:
        first = connection.get_server_pid()
        await connection.execute("BEGIN")
    await settle(pools)
    async with pools.connection(member.placement) as connection:
        assert connection.get_server_pid() != first


async def test_a_terminated_idle_connection_is_replaced_unseen(members: Members, pools: RequestPools) -> None:
    member = await members.add("acme")
    await read(pools, member)
    async with members.databases.admin(members.cluster) as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", member.home.role_name
        )
        await asyncio.sleep(0.1)
    assert await read(pools, member) == set()
    assert pools.open_connections(members.cluster.id) == 1


async def test_exhaustion_is_a_503_and_passes(members: Members, opened: Callable[..., Any]) -> None:
    # attack 37
    acme, other = await members.add("acme", "schema"), await members.add("other", "schema")
    async with opened(dedicated_pool_size=1, acquire_timeout=0.05) as pools:
        async with pools.connection(acme.placement):
            with pytest.raises(PoolExhausted) as raised:
                await read(pools, acme)
            assert raised.value.status == 503
            assert raised.value.retry_after
            assert await read(pools, other) == set()  # the bulkhead
        assert await read(pools, acme) == set()


async def test_a_flood_of_one_tenant_leaves_the_others_served(members: Members, opened: Callable[..., Any]) -> None:
    """Attack 37: all requests of a tenant hang, more than there is room for; no request of the other one fails."""
    acme, other = await members.add("acme"), await members.add("other")
    async with opened(shared_pool_size=4, tenant_queue=20, acquire_timeout=30.0) as pools:
        flood = [asyncio.create_task(read(pools, acme, pause=30)) for _ in range(60)]
        await until_sleeping(members, acme)
        refused = [task for task in flood if task.done()]
        assert len(refused) == 38  # two hang, twenty wait
        assert {type(task.exception()) for task in refused} == {PoolExhausted}
        for _ in range(3):  # without anything of the flood having ended
            assert await asyncio.gather(*(read(pools, other) for _ in range(10))) == [set()] * 10
        assert not any(task.done() for task in flood if task not in refused)
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


async def test_closing_refuses_those_who_wait(members: Members, opened: Callable[..., Any]) -> None:
    member = await members.add("acme")
    async with opened(shared_pool_size=1, acquire_timeout=30.0) as pools:
        async with pools.connection(member.placement):
            waiting = asyncio.create_task(read(pools, member))
            await asyncio.sleep(0)
            await pools.aclose()
            with pytest.raises(Unavailable, match="shutting down"):
                await waiting
        await settle(pools)
        assert pools.open_connections(members.cluster.id) == 0


async def test_the_budget_holds_over_more_homes_than_it_has_connections(
    members: Members, opened: Callable[..., Any]
) -> None:
    tenants = [await members.add(f"tenant-{number}", "schema") for number in range(5)]
    async with opened(cluster_connections=3, dedicated_pool_size=2, acquire_timeout=30.0) as pools:
        for member in tenants:
            await create(pools, member, member.tenant.slug)
        peak = 0

        async def ask(member: Member) -> None:
            nonlocal peak
            assert await read(pools, member) == {member.tenant.slug}
            peak = max(peak, pools.open_connections(members.cluster.id))

        dice = random.Random(5)
        await asyncio.gather(*(ask(dice.choice(tenants)) for _ in range(150)))
        assert peak <= 3
        await settle(pools)
        assert sum([await sessions(members, member) for member in tenants]) <= 3


async def test_the_connection_idle_longest_gives_way(members: Members, opened: Callable[..., Any]) -> None:
    first, second, third = [await members.add(f"tenant-{number}", "schema") for number in range(3)]
    async with opened(cluster_connections=3, dedicated_pool_size=2) as pools:
        async with pools.connection(first.placement), pools.connection(first.placement):
            pass
        await read(pools, second)
        await read(pools, first)  # one of its two is used again: second is the oldest now
        await read(pools, third)
        assert [await sessions(members, member) for member in (first, second, third)] == [2, 0, 1]


async def test_idle_connections_are_closed_but_for_one_of_a_shared_home(
    members: Members, opened: Callable[..., Any]
) -> None:
    shared, own = await members.add("acme"), await members.add("own", "schema")
    async with opened(pool_idle_seconds=0.2) as pools:
        async with pools.connection(shared.placement), pools.connection(shared.placement):
            await read(pools, own)
        assert pools.open_connections(members.cluster.id) == 3
        await until(lambda: pools.open_connections(members.cluster.id) == 1)
        assert [await sessions(members, member) for member in (shared, own)] == [1, 0]


async def test_first_requests_of_a_home_read_its_credential_once(
    members: Members, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await members.add("acme", "schema")
    reads = 0
    original = RequestPools._read_target

    async def counted(self: RequestPools, *arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return await original(self, *arguments)

    monkeypatch.setattr(RequestPools, "_read_target", counted)
    async with opened(dedicated_pool_size=2, acquire_timeout=30.0) as pools:
        await asyncio.gather(*(read(pools, member) for _ in range(20)))
        assert pools.open_connections(members.cluster.id) == 2
    assert reads == 1


async def test_a_rotated_password_is_read_again_once(members: Members, pools: RequestPools) -> None:
    member = await members.add("acme", "schema")
    await read(pools, member)
    async with members.databases.admin(members.cluster) as admin:
        await admin.execute(f"ALTER ROLE \"{member.home.role_name}\" PASSWORD 'rotated'")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", member.home.role_name
        )
        await asyncio.sleep(0.1)
    with pytest.raises(StaleEpoch):  # the registry has the old one still
        await read(pools, member)
    async with members.databases.registry.begin() as session:
        home = await session.merge(member.home)
        home.password = members.databases.box.seal("rotated")
        home.credential_generation += 1
    assert await read(pools, member) == set()


async def test_a_dropped_home_is_a_stale_placement(members: Members, pools: RequestPools) -> None:
    member = await members.add("acme", "database")
    await members.drop(member)
    with pytest.raises(StaleEpoch):
        await read(pools, member)
    assert pools.open_connections(members.cluster.id) == 0


async def test_an_unreachable_cluster_is_a_503_that_spares_it_further_attempts(
    server: Server, members: Members, pools: RequestPools
) -> None:
    member = await members.add("acme")
    async with open_proxy(server) as proxy:
        dead = proxy.dsn
    async with members.databases.registry.begin() as session:
        (await session.get_one(Cluster, members.cluster.id)).dsn = members.databases.box.seal(dead)
    for _ in range(3):
        with pytest.raises(ClusterUnavailable) as raised:
            await read(pools, member)
        assert raised.value.retry_after
    assert pools.open_connections(members.cluster.id) == 0


@pytest.mark.parametrize(
    "poison",
    [
        "SELECT set_config('app.current_tenant_id', gen_random_uuid()::text, false)",
        "SET search_path = pg_catalog",
        "SELECT pg_advisory_lock(1)",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    ],
)
async def test_an_inspection_ends_a_session_that_kept_state(
    members: Members, pools: RequestPools, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    # attacks 28, 29
    monkeypatch.setattr(request_pools, "INSPECT_EVERY", 2)
    member = await members.add("acme")
    async with pools.connection(member.placement) as connection:
        first = connection.get_server_pid()
    async with pools.connection(member.placement) as connection:
        assert connection.get_server_pid() == first
    await settle(pools)
    async with pools.connection(member.placement) as connection:
        assert connection.get_server_pid() == first  # inspected and found clean
    async with pools.connection(member.placement) as connection:
        await connection.execute(poison)
    await settle(pools)
    async with pools.connection(member.placement) as connection:
        assert connection.get_server_pid() != first


async def test_closing_waits_for_nobody_and_loses_nothing(members: Members, opened: Callable[..., Any]) -> None:
    member = await members.add("acme")
    async with opened() as pools:
        async with pools.connection(member.placement) as connection:
            await pools.aclose()
            assert await connection.fetchval("SELECT 1") == 1
        await settle(pools)
        assert pools.open_connections(members.cluster.id) == 0


async def test_every_connection_of_a_pool_begins_in_its_own_schema(
    members: Members, opened: Callable[..., Any]
) -> None:
    """Attack 33: all connections, and those that replace them, fall back to the home's schema on a reset."""
    member = await members.add("acme", "schema")
    expected = f"{member.home.schema_name}, extensions, pg_temp"
    query = "SELECT setting, reset_val FROM pg_settings WHERE name = 'search_path'"
    async with opened(dedicated_pool_size=4) as pools:
        for _ in range(2):
            async with AsyncExitStack() as stack:
                held = [await stack.enter_async_context(pools.connection(member.placement)) for _ in range(4)]
                assert len({connection.get_server_pid() for connection in held}) == 4
                assert [tuple(await each.fetchrow(query)) for each in held] == [(expected, expected)] * 4
                async with members.databases.admin(members.cluster) as admin:
                    await admin.fetch(
                        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1",
                        member.home.role_name,
                    )
            await settle(pools)


async def test_the_text_of_a_statement_holds_no_value_of_a_request(members: Members, pools: RequestPools) -> None:
    """Attack 19: who sees the statements of others, in a shared home or in a log, sees no data in them."""
    acme, other = await members.add("acme"), await members.add("other")
    await create(pools, acme, "a secret of acme")
    async with pools.connection(acme.placement) as first, pools.connection(other.placement) as second:
        await first.fetchval("SELECT 1")
        await read_on(first, acme)
        seen = await second.fetchval(
            "SELECT query FROM pg_stat_activity WHERE pid = $1 AND usename = current_user", first.get_server_pid()
        )
    assert "projects" in seen
    assert "secret" not in seen
    assert str(acme.id) not in seen
