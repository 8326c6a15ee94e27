"""A cluster's pooler: put there and taken away, looked through, down, and set up wrongly (attack 35)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from control_plane.errors import ClusterUnavailable, InvalidInput, StaleEpoch, UnsafePosture
from control_plane.isolation.cluster import check_cluster
from control_plane.isolation.login import role_call, verifier_call
from control_plane.pools import requests
from control_plane.pools.requests import RequestPools
from control_plane.pools.session_state import CLEAN_SESSION, PROCESS, PooledConnection
from control_plane.settings import Settings
from control_plane.tenants.clusters import list_clusters, set_pooler
from tests.integration import test_request_pools
from tests.integration.pooler.conftest import put_before
from tests.integration.sessions import test_connections
from tests.integration.test_request_pools import create, opened, read, settle
from tests.support.members import Member, Members
from tests.support.mutation import mutated
from tests.support.pooler import Pooler, open_pooler
from tests.support.servers import Server

__all__ = ["opened"]

MODES = ("shared", "schema", "database")
RED = (AssertionError, pytest.fail.Exception, asyncpg.PostgresError)


@pytest_asyncio.fixture
async def forgetting(server: Server, members: Members) -> AsyncIterator[Pooler]:
    """In the place of the documented one a pooler that resets no session."""
    async with open_pooler(server, server_reset_query_always="0") as other:
        await put_before(members.cluster, members.databases, other)
        yield other


async def test_requests_go_through_the_pooler_and_nothing_else_does(
    members: Members, pools: RequestPools, pooler: Pooler
) -> None:
    member = await members.add("acme", "database")
    await create(pools, member, "one")
    assert await read(pools, member) == {"one"}
    assert f"db={member.home.database} user={member.home.role_name}" in pooler.log
    assert "user=cp_admin" not in pooler.log
    assert "user=cp_ci" not in pooler.log


async def test_a_pooler_is_put_before_a_cluster_and_taken_away(members: Members, pooler: Pooler) -> None:
    databases = members.databases
    homes = [await members.add(f"of-{mode}", mode) for mode in MODES]
    await set_pooler(databases, "main", None, actor="tests")
    for member in homes:  # as an older release has left them
        async with databases.admin(members.cluster, member.home.database) as admin:
            await admin.execute("DELETE FROM tenancy.logins")
            await admin.execute(f'ALTER ROLE "{member.home.role_name}" RESET jit')
    record = await set_pooler(databases, "main", pooler.address, actor="tests")
    assert record.pooler == pooler.address
    assert [each.pooler for each in await list_clusters(databases)] == [pooler.address]
    pools = RequestPools(databases, databases.settings)
    for member in homes:
        assert await read(pools, member) == set()
        async with pools.connection(member.placement) as connection:
            assert await connection.fetchval("SHOW jit") == "off"
    await pools.aclose()
    assert (await set_pooler(databases, "main", None, actor="tests")).pooler is None


async def test_processes_follow_when_the_pooler_changes(members: Members, pooler: Pooler, settings: Settings) -> None:
    member = await members.add("acme")
    pools = RequestPools(members.databases, settings.model_copy(update={"placement_ttl": 0.01}))
    async with pools.connection(member.placement) as connection:
        assert type(connection) is PooledConnection
        await set_pooler(members.databases, "main", None, actor="tests")
        await asyncio.sleep(0.02)
        async with pools.connection(member.placement) as second:
            assert type(second) is asyncpg.Connection
    await pools.aclose()


@pytest.mark.parametrize("mode", MODES)
async def test_a_pooler_that_is_down_is_a_503_until_it_is_back(
    server: Server, members: Members, pools: RequestPools, mode: str
) -> None:
    member = await members.add("acme", mode)
    async with open_pooler(server) as mortal:
        await put_before(members.cluster, members.databases, mortal)
        assert await read(pools, member) == set()
        await mortal.stop()
        for _ in range(3):
            with pytest.raises((ClusterUnavailable, asyncpg.PostgresConnectionError, ConnectionError)):
                await read(pools, member)
        with pytest.raises(ClusterUnavailable) as raised:
            await read(pools, member)
        assert (raised.value.status, raised.value.code) == (503, "cluster_unavailable")
        assert raised.value.retry_after
        assert [f.code for f in await check_cluster(members.databases, members.cluster)] == ["pooler_unreachable"]
        with pytest.raises(ClusterUnavailable):
            await set_pooler(members.databases, "main", mortal.address, actor="tests")
        await mortal.start()
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await read(pools, member) == set()
                    break
                except ClusterUnavailable:  # it is not tried all the time
                    await asyncio.sleep(0.1)
        await pools.aclose()


async def test_a_login_that_the_pooler_refuses_is_no_outage(members: Members, pools: RequestPools) -> None:
    """A home that is gone must not look like a cluster that is gone."""
    gone, there = await members.add("gone", "schema"), await members.add("there", "schema")
    await members.drop(gone)
    with pytest.raises(StaleEpoch):
        await read(pools, gone)
    assert await read(pools, there) == set()


async def test_a_database_that_is_gone_is_no_outage(server: Server, members: Members, pools: RequestPools) -> None:
    """PgBouncer lets its client wait for a server, and then says what it says of a server that is down."""
    gone, there = await members.add("gone", "database"), await members.add("there")
    async with open_pooler(server, query_wait_timeout="1") as impatient:
        await put_before(members.cluster, members.databases, impatient)
        await members.drop(gone)
        with pytest.raises(ClusterUnavailable):
            await read(pools, gone)
        await members.record(gone, status="deleting")
        gone_again = RequestPools(members.databases, members.databases.settings)
        with pytest.raises(StaleEpoch):
            await read(gone_again, gone)
        assert await read(pools, there) == set()
        await pools.aclose()


async def test_a_rotated_password_is_followed(members: Members, pools: RequestPools) -> None:
    member = await members.add("acme", "schema")
    await read(pools, member)
    home, databases = member.home, members.databases
    async with databases.registry.begin() as session:
        home.password = databases.box.seal("rotated, and long enough")
        home.credential_generation = 2
        await session.merge(home)
    async with databases.admin(members.cluster) as admin:
        await admin.execute(role_call(home, databases.box, 5.0, []) + verifier_call(home, databases.box))
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", home.role_name)
    async with pools.connection(member.placement), pools.connection(member.placement):
        pass  # at least one of them is a new login
    await settle(pools)
    assert await read(pools, member) == set()


async def test_the_documented_pooler_has_no_finding(members: Members) -> None:
    assert await check_cluster(members.databases, members.cluster) == []  # without a home too
    await members.add("acme")
    assert await check_cluster(members.databases, members.cluster) == []


@pytest.mark.parametrize(
    ("settings_of", "code"),
    [
        ({"server_reset_query_always": "0"}, "pooler_state"),
        ({"pool_mode": "session"}, "pooler_state"),
        ({"pool_mode": "statement"}, "pooler_mode"),
        ({"auth_query": "SELECT NULL::text, NULL::text WHERE $1 = 'nobody'"}, "pooler_login"),
    ],
)
async def test_a_pooler_that_is_set_up_wrongly_is_found(
    server: Server, members: Members, pooler: Pooler, settings_of: dict[str, str], code: str
) -> None:
    await members.add("acme")
    async with open_pooler(server, **settings_of) as wrong:
        await put_before(members.cluster, members.databases, wrong)
        (finding,) = await check_cluster(members.databases, members.cluster)
        assert finding.code == code
        assert finding.fix
        if code == "pooler_mode":
            await set_pooler(members.databases, "main", wrong.address, actor="tests")
        else:
            with pytest.raises(UnsafePosture):
                await set_pooler(members.databases, "main", wrong.address, actor="tests")


async def test_statement_mode_serves_the_api(server: Server, members: Members, pools: RequestPools) -> None:
    """Attack 35: calls and reads of the API are single statements."""
    tenants = [await members.add("acme"), await members.add("other"), await members.add("own", "database")]
    async with open_pooler(server, pool_mode="statement") as statements:
        await put_before(members.cluster, members.databases, statements)
        for member in tenants:
            await create(pools, member, member.slug)

        async def ask(member: Member) -> None:
            assert await read(pools, member) == {member.slug}

        await asyncio.gather(*(ask(member) for _ in range(50) for member in tenants))
        await pools.aclose()


async def test_prepared_statements_have_no_name_that_another_process_might_give(
    members: Members, settings: Settings, forgetting: Pooler
) -> None:
    """They meet in the same session of the server, which nobody resets here; asyncpg's own names are numbers alone."""
    member = await members.add("acme", "schema")
    pools = RequestPools(members.databases, settings, full_reset=True)
    async with pools.connection(member.placement) as connection, connection.transaction():
        statement = await connection.prepare("SELECT 1")
        assert await statement.fetchval() == 1
        rows = [row[0] async for row in connection.cursor("SELECT 1")]
        names = await connection.fetch("SELECT name FROM pg_prepared_statements")
        assert rows == [1]
        assert [row["name"] for row in names if not row["name"].startswith(f"__cp_stmt_{PROCESS}")] == []
    await settle(pools)
    await pools.aclose()


async def test_an_inspection_ends_the_session_of_the_server(
    members: Members, pools: RequestPools, forgetting: Pooler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To close the connection alone would leave the session to the next client."""
    monkeypatch.setattr(requests, "INSPECT_EVERY", 2)
    member = await members.add("acme")
    await read(pools, member)
    async with pools.connection(member.placement) as connection:
        first = await connection.fetchval("SELECT pg_backend_pid()")
        await connection.execute("SET search_path = pg_catalog")
    await settle(pools)
    async with pools.connection(member.placement) as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") != first


async def test_a_statement_cache_behind_a_pooler_is_noticed(members: Members, opened: object) -> None:
    """Attack 35: `statements stay prepared behind a pooler`."""
    with mutated(RequestPools._dial, "or target.pooled else 256", "else 256"), pytest.raises(RED):
        await test_request_pools.test_interleaved_requests_of_two_tenants_never_mix(members, opened)  # type: ignore[arg-type]


async def test_a_library_that_leaves_parameters_to_the_pooler_is_noticed(members: Members, settings: Settings) -> None:
    """Attack 35: `a pooler takes TimeZone along`."""
    with mutated(PooledConnection.get_reset_query, "RESET ALL;", ""), pytest.raises(RED):
        await test_connections.test_nothing_of_a_session_reaches_the_next_request(
            members, settings, "SET TimeZone = 'Asia/Tokyo'"
        )


async def test_an_inspection_that_leaves_the_session_is_noticed(
    members: Members, pools: RequestPools, forgetting: Pooler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack 35: `an inspection closes the connection alone`."""
    monkeypatch.setattr(requests, "INSPECT", CLEAN_SESSION)
    with pytest.raises(RED):
        await test_an_inspection_ends_the_session_of_the_server(members, pools, forgetting, monkeypatch)


async def test_a_pooler_that_resets_nothing_is_noticed(
    members: Members, settings: Settings, forgetting: Pooler
) -> None:
    """Attack 35: `a session goes to the next client as it is`."""
    with pytest.raises(RED):
        await test_connections.test_nothing_of_a_session_reaches_the_next_request(
            members, settings, "SELECT pg_advisory_lock(42)"
        )


@pytest.mark.parametrize(
    "address",
    [
        "pooler:6432",
        "postgresql://",
        "http://pooler:6432",
        "postgresql://pooler:port",
        "postgresql://pooler:0",
        "postgresql://pooler/database",
        "postgresql://role@pooler",
        "postgresql://role:secret@pooler",
        "postgresql://pooler?user=role",
        "postgresql://pooler?password=secret",
        "postgresql://pooler?options=-c%20jit%3Doff",
        "postgresql://pooler#6432",
        "postgresql://pooler\n",
    ],
)
async def test_an_address_names_a_place_and_nothing_else(members: Members, address: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        await set_pooler(members.databases, "main", address, actor="tests")
    assert "secret" not in str(raised.value)
    assert raised.value.hint
