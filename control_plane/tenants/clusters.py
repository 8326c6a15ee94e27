"""Clusters: the servers that tenants are placed on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg

from control_plane.errors import ClusterNameTaken, ClusterUnavailable, Conflict, InvalidInput, UnsafePosture
from control_plane.isolation.cluster import (
    Finding,
    check_cluster,
    prepare_cluster,
    require_safe,
    server_identity,
)
from control_plane.isolation.pooler import admit_logins, pooler_address, pooler_findings
from control_plane.pools.databases import Databases
from control_plane.registry import audit, clusters
from control_plane.registry.installation import installation_id
from control_plane.registry.models import ISOLATIONS, Cluster


@dataclass(frozen=True)
class ClusterRecord:
    """A cluster without its connection string; `capacity` is in tenants, None = unlimited."""

    id: UUID
    name: str
    status: str
    region: str | None
    isolations: list[str]
    capacity: int | None
    tenants: int
    pooler: str | None  # the address that requests go through
    created_at: datetime


async def add_cluster(
    databases: Databases,
    name: str,
    dsn: str,
    *,
    region: str | None = None,
    isolations: Sequence[str] = ISOLATIONS,
    capacity: int | None = None,
    pooler: str | None = None,
    actor: str,
) -> ClusterRecord:
    """Prepare the server, check that it can isolate tenants, then accept it.

    Raises `InvalidInput`, `ClusterNameTaken`, `Conflict`, `ClusterUnavailable`, `UnsafePosture`.
    """
    if unknown := sorted(set(isolations) - set(ISOLATIONS)):
        raise InvalidInput(f"Unknown isolation: {', '.join(unknown)}.", hint=f"One of {', '.join(ISOLATIONS)}.")
    async with databases.registry() as session:
        if await clusters.exists(session, name):
            raise ClusterNameTaken
        installation = await installation_id(session)
    cluster = Cluster(
        id=uuid4(),
        name=name,
        dsn=databases.box.seal(dsn),
        database=await _prepare(databases, dsn, installation),
        region=region,
        isolations=[isolation for isolation in ISOLATIONS if isolation in isolations],
        capacity=capacity,
        pooler=None if pooler is None else pooler_address(pooler),
    )
    await require_safe(databases, cluster)
    await _require_pooler(databases, cluster)
    await _require_new_server(databases, cluster)
    async with databases.registry.begin() as session:
        await clusters.add(session, cluster)
        audit.record(session, actor, "cluster.add", cluster=name)
        return _record(cluster, 0)


async def _require_new_server(databases: Databases, cluster: Cluster) -> None:
    """Under two names a server would count its tenants twice, and each name would take the other's for orphans."""
    identity = await server_identity(databases, cluster)
    async with databases.registry() as session:
        known = await clusters.all_by_name(session)
    for other in known:
        with suppress(ClusterUnavailable):  # which is then no server that has just answered
            if await server_identity(databases, other) == identity:
                raise Conflict(f"This server is registered as cluster '{other.name}' already.")


async def set_pooler(databases: Databases, name: str, pooler: str | None, *, actor: str) -> ClusterRecord:
    """Let requests go through the pooler at that address, or to the server itself again (None).

    Processes follow within `CP_PLACEMENT_TTL` seconds, each with the connections that it opens from then on. Raises
    `ClusterNotFound`, `InvalidInput`, `ClusterUnavailable` and `UnsafePosture`, and changes nothing then.
    """
    async with databases.registry() as session:
        cluster = await clusters.by_name(session, name)
    cluster.pooler = None if pooler is None else pooler_address(pooler)
    if pooler is not None:
        await admit_logins(databases, cluster)
        await _require_pooler(databases, cluster)
    async with databases.registry.begin() as session:
        stored = await clusters.by_name(session, name, lock=True)
        if stored.pooler != pooler:
            stored.pooler = pooler
            audit.record(session, actor, "cluster.set_pooler", cluster=name)
        counts = await clusters.tenant_counts(session, stored.id)
        return _record(stored, counts.get(stored.id, 0))


async def _require_pooler(databases: Databases, cluster: Cluster) -> None:
    """A pooler that serves single statements only is fine for the API, so it is told and not refused."""
    for finding in await pooler_findings(databases, cluster):
        if finding.code == "pooler_unreachable":
            raise ClusterUnavailable(f"The pooler {finding.problem}.", hint=finding.fix)
        if finding.code != "pooler_mode":
            raise UnsafePosture(f"The pooler {finding.problem}.", hint=finding.fix)


async def _prepare(databases: Databases, dsn: str, installation: UUID) -> str:
    try:
        return await prepare_cluster(databases, dsn, installation)
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
        raise InvalidInput("The server refuses the connection string's role, password or database.") from error


async def list_clusters(databases: Databases) -> list[ClusterRecord]:
    async with databases.registry() as session:
        counts = await clusters.tenant_counts(session)
        return [_record(cluster, counts.get(cluster.id, 0)) for cluster in await clusters.all_by_name(session)]


async def drain_cluster(databases: Databases, name: str, *, actor: str) -> ClusterRecord:
    """Place no more tenants there; those that live there stay and are served. Raises `ClusterNotFound`."""
    async with databases.registry.begin() as session:
        cluster = await clusters.by_name(session, name, lock=True)
        if cluster.status != "draining":
            cluster.status = "draining"
            audit.record(session, actor, "cluster.drain", cluster=name)
        counts = await clusters.tenant_counts(session, cluster.id)
        return _record(cluster, counts.get(cluster.id, 0))


async def check(databases: Databases, name: str) -> list[Finding]:
    """What keeps the cluster from isolating tenants. Raises `ClusterNotFound`, `ClusterUnavailable`."""
    async with databases.registry() as session:
        cluster = await clusters.by_name(session, name)
    return await check_cluster(databases, cluster)


def _record(cluster: Cluster, tenants: int) -> ClusterRecord:
    return ClusterRecord(
        id=cluster.id,
        name=cluster.name,
        status=cluster.status,
        region=cluster.region,
        isolations=cluster.isolations,
        capacity=cluster.capacity,
        tenants=tenants,
        pooler=cluster.pooler,
        created_at=cluster.created_at,
    )
