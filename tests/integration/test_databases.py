"""Administrative connections that are kept for the next verb."""

from __future__ import annotations

from control_plane.pools import databases as module
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster


async def test_a_connection_is_kept_and_not_for_ever(databases: Databases, cluster: Cluster) -> None:
    seen = []
    for _ in range(2 * module._USES):
        async with databases.kept_admin(cluster, cluster.database) as connection:
            seen.append(connection.get_server_pid())
    assert len(set(seen[: module._USES])) == 1
    assert len(set(seen[module._USES :])) == 1
    assert seen[0] != seen[-1]


async def test_a_connection_that_is_left_in_a_transaction_is_not_kept(databases: Databases, cluster: Cluster) -> None:
    async with databases.kept_admin(cluster, cluster.database) as connection:
        await connection.execute("BEGIN")
        first = connection.get_server_pid()
    async with databases.kept_admin(cluster, cluster.database) as connection:
        assert connection.get_server_pid() != first
