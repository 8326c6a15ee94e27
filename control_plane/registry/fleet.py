"""Which databases hold homes, as the registry knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.registry.models import Cluster, Home, Tenant


@dataclass(frozen=True, slots=True)
class Place:
    """One database that holds homes: a cluster's tenants database, or that of one database home."""

    cluster: Cluster
    database: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """`places` in order of cluster name; `copies` maps the homes whose recorded version is not the target to it."""

    places: tuple[Place, ...]
    copies: dict[UUID, int]
    building: int  # homes that their provisioner has not finished


async def read_fleet(session: AsyncSession, template: str | None, target: int = 0) -> Fleet:
    """Every database with homes of `template` (None = of any)."""
    clusters = (await session.scalars(select(Cluster).order_by(Cluster.name))).all()
    homes = await session.execute(
        select(Home.id, Home.cluster_id, Home.database, Home.isolation, Home.pattern_version, Home.ready)
        .where(or_(Home.isolation == "database", Home.pattern_version != target))
        .where(Home.template == template if template else Home.template.is_not(None))
        .order_by(Home.database)
    )
    own: dict[UUID, list[str]] = {}
    copies: dict[UUID, int] = {}
    building = 0
    for home_id, cluster_id, database, isolation, version, ready in homes:
        if not ready:
            building += 1
            continue
        if isolation == "database":
            own.setdefault(cluster_id, []).append(database)
        if version != target:
            copies[home_id] = version
    places = [
        Place(cluster, database) for cluster in clusters for database in (cluster.database, *own.get(cluster.id, ()))
    ]
    return Fleet(tuple(places), copies, building)


async def labelled_homes(session: AsyncSession, template: str, labels: Mapping[str, str]) -> set[UUID]:
    """The homes of `template` whose tenants have all of `labels`; none for no labels."""
    if not labels:
        return set()
    query = (
        select(Home.id)
        .join(Tenant, Tenant.home_id == Home.id)
        .where(Home.template == template, Tenant.labels.contains(dict(labels)))
    )
    return set(await session.scalars(query))
