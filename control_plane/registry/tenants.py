"""Tenants by slug or id."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import TenantNotFound
from control_plane.registry.conflicts import domain_errors
from control_plane.registry.models import Cluster, Home, Tenant, tenant_epochs


class Placed(NamedTuple):
    """A tenant with its home and cluster."""

    tenant: Tenant
    home: Home
    cluster: Cluster


async def add(session: AsyncSession, tenant: Tenant) -> None:
    """Raises `SlugTaken`."""
    session.add(tenant)
    with domain_errors():
        await session.flush()


def _named(ref: str | UUID) -> Any:
    """Slugs are never shaped like uuids, so one look at the text tells which of the two it is."""
    if isinstance(ref, UUID):
        return Tenant.id == ref
    try:
        return Tenant.id == UUID(ref)
    except ValueError:
        if "\0" in ref:  # which PostgreSQL would refuse as a malformed text
            raise TenantNotFound from None
        return Tenant.slug == ref


async def get(session: AsyncSession, ref: str | UUID, *, lock: bool = False) -> Placed:
    """The tenant that is not deleted; `lock` holds its row. Raises `TenantNotFound`."""
    query = (
        select(Tenant, Home, Cluster)
        .join(Home, Home.id == Tenant.home_id)
        .join(Cluster, Cluster.id == Home.cluster_id)
        .where(_named(ref), Tenant.status != "deleted")
    )
    if lock:
        query = query.with_for_update(of=Tenant)
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise TenantNotFound
    return Placed(*row)


async def next_epoch(session: AsyncSession) -> int:
    return (await session.execute(select(tenant_epochs.next_value()))).scalar_one()


class Described(NamedTuple):
    """A tenant with its template, pattern version and the name of its cluster; all three None once deleted."""

    tenant: Tenant
    template: str | None
    pattern_version: int | None
    cluster: str | None


_DESCRIBED = (
    select(Tenant, Home.template, Home.pattern_version, Cluster.name)
    .outerjoin(Home, Home.id == Tenant.home_id)
    .outerjoin(Cluster, Cluster.id == Home.cluster_id)
)


async def describe(session: AsyncSession, ref: str | UUID, *, deleted: bool = False) -> Described:
    """Raises `TenantNotFound`; deleted tenants are found by id when `deleted` is set."""
    query = _DESCRIBED.where(_named(ref))
    if not (deleted and isinstance(ref, UUID)):
        query = query.where(Tenant.status != "deleted")
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise TenantNotFound
    return Described(*row)


async def page(
    session: AsyncSession,
    *,
    status: str | None,
    isolation: str | None,
    version: int | None,
    cluster: str | None,
    after: tuple[str, UUID] | None,
    limit: int,
) -> list[Described]:
    """Tenants in the order of their slugs, past `after` (slug, id); deleted ones only when asked for."""
    query = _DESCRIBED
    query = query.where(Tenant.status != "deleted" if status is None else Tenant.status == status)
    if isolation is not None:
        query = query.where(Tenant.isolation == isolation)
    if version is not None:
        query = query.where(Home.pattern_version == version)
    if cluster is not None:
        query = query.where(Cluster.name == cluster)
    if after is not None:
        query = query.where(tuple_(Tenant.slug, Tenant.id) > after)
    rows = await session.execute(query.order_by(Tenant.slug, Tenant.id).limit(limit))
    return [Described(*row) for row in rows]
