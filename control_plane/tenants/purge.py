"""What is kept for a while only.

In homes that is told changes, the answers of calls with an idempotency key and cached answers; in the registry it is
revocations, until every token that they concern has expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import asyncpg
from sqlalchemy import select

from control_plane.pools.databases import Databases
from control_plane.registry import revocations
from control_plane.registry.models import Cluster, Home
from control_plane.templates.script import quote

BATCH = 10_000  # rows per transaction
KEPT = {  # table → how long its rows are kept, and the function that deletes older ones
    "tb_change": ("7 days", "tenancy.purge_changes"),  # longer than any cached answer that a change overtakes
    "tb_idempotency_key": ("24 hours", "tenancy.purge_idempotency_keys"),
    "tb_cached_result": ("10 minutes", "tenancy.evict_cached_results"),  # since it expired
}


async def purge(databases: Databases) -> dict[str, int]:
    """Delete what is too old from the registry and every home; how many rows went, by table.

    Raises `ClusterUnavailable`.
    """
    query = select(Cluster, Home.database, Home.schema_name).join(Home, Home.cluster_id == Cluster.id)
    async with databases.registry.begin() as session:
        deleted = {"revocations": await revocations.delete_expired(session)} | dict.fromkeys(KEPT, 0)
        homes = (await session.execute(query.where(Home.ready).order_by(Cluster.id, Home.database))).all()
    for (_, database), group in groupby(homes, key=lambda home: (home[0].id, home[1])):
        of_database = list(group)
        async with databases.kept_admin(of_database[0][0], database) as connection:
            for table in KEPT:
                deleted[table] += await _purge(connection, table, [schema for _, _, schema in of_database])
    return deleted


async def _purge(connection: asyncpg.Connection, table: str, schemas: Sequence[str]) -> int:
    age, function = KEPT[table]
    deleted = 0
    names = [f"{quote(schema)}.{quote(table)}" for schema in schemas]
    # A home of an earlier version has no such table yet.
    for (name,) in await connection.fetch("SELECT n FROM unnest($1::text[]) n WHERE to_regclass(n) IS NOT NULL", names):
        while True:
            async with connection.transaction():
                await connection.execute("SET LOCAL ROLE cp_owner")
                gone = await connection.fetchval(
                    f"SELECT {function}($1::text::regclass, $2::text::interval, $3)", name, age, BATCH
                )
            deleted += gone
            if gone < BATCH:
                break
    return deleted
