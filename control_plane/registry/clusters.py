"""Clusters, and how many tenants each one carries."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import any_, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import ClusterNotFound
from control_plane.registry.conflicts import domain_errors
from control_plane.registry.models import Cluster, Home, Tenant


async def add(session: AsyncSession, cluster: Cluster) -> None:
    """Raises `ClusterNameTaken`."""
    session.add(cluster)
    with domain_errors():
        await session.flush()


async def by_name(session: AsyncSession, name: str, *, lock: bool = False) -> Cluster:
    """Raises `ClusterNotFound`. `lock` makes others that lock the row wait; rows may still refer to it meanwhile."""
    query = select(Cluster).where(Cluster.name == name)
    if lock:
        query = query.with_for_update(key_share=True)
    cluster = await session.scalar(query)
    if cluster is None:
        raise ClusterNotFound(f"There is no cluster {name!r}.")
    return cluster


async def exists(session: AsyncSession, name: str) -> bool:
    return await session.scalar(select(Cluster.id).where(Cluster.name == name)) is not None


async def all_by_name(session: AsyncSession) -> Sequence[Cluster]:
    return (await session.scalars(select(Cluster).order_by(Cluster.name))).all()


async def accepting(session: AsyncSession, isolation: str) -> Sequence[Cluster]:
    """Active clusters that tenants of `isolation` may be placed on."""
    query = select(Cluster).where(Cluster.status == "active", literal(isolation) == any_(Cluster.isolations))
    return (await session.scalars(query.order_by(Cluster.name))).all()


async def lock(session: AsyncSession, cluster: Cluster) -> None:
    await session.execute(select(Cluster.id).where(Cluster.id == cluster.id).with_for_update(key_share=True))


async def tenant_counts(session: AsyncSession, cluster_id: UUID | None = None) -> dict[UUID, int]:
    """Tenants that hold a home, by cluster; clusters without any are absent."""
    query = select(Home.cluster_id, func.count()).join(Tenant, Tenant.home_id == Home.id).group_by(Home.cluster_id)
    if cluster_id is not None:
        query = query.where(Home.cluster_id == cluster_id)
    return {row[0]: row[1] for row in await session.execute(query)}
