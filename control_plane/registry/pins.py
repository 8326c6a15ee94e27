"""Pins: tenants that stay at a version until a day. The registry's clock decides when a pin ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.registry.models import Cluster, Home, Pin, Tenant


class ActivePin(NamedTuple):
    """A pin that has not expired, with the home of its tenant; `at` is the version that the registry has of it."""

    tenant: str
    template: str
    cluster: str
    isolation: str
    home_id: UUID
    at: int
    version: int
    reason: str
    actor: str
    created_at: datetime
    expires_at: datetime


_ACTIVE = (
    select(Pin, Tenant.slug, Home, Cluster.name)
    .join(Tenant, Tenant.id == Pin.tenant_id)
    .join(Home, Home.id == Tenant.home_id)
    .join(Cluster, Cluster.id == Home.cluster_id)
    .where(Pin.expires_at > func.now())
    .order_by(Tenant.slug)
)


async def active(session: AsyncSession, template: str | None = None) -> Sequence[ActivePin]:
    """By slug; `template` None = of any."""
    query = _ACTIVE if template is None else _ACTIVE.where(Home.template == template)
    return [_active(*row) for row in await session.execute(query)]


async def of_tenant(session: AsyncSession, tenant_id: UUID) -> ActivePin | None:
    query = _ACTIVE.where(Pin.tenant_id == tenant_id).execution_options(populate_existing=True)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _active(*row)


async def put(
    session: AsyncSession, tenant_id: UUID, *, version: int, reason: str, actor: str, expires_at: datetime
) -> None:
    """Pin the tenant, in place of a pin that it has."""
    values = {"version": version, "reason": reason, "actor": actor, "expires_at": expires_at}
    await session.execute(
        insert(Pin)
        .values(tenant_id=tenant_id, **values)
        .on_conflict_do_update(index_elements=["tenant_id"], set_={**values, "created_at": func.now()})
    )


async def remove(session: AsyncSession, tenant_id: UUID) -> bool:
    """Whether there was one that had not expired; one that had goes, too."""
    gone = await session.execute(delete(Pin).where(Pin.tenant_id == tenant_id).returning(Pin.expires_at > func.now()))
    return bool(gone.scalar_one_or_none())


def _active(pin: Pin, tenant: str, home: Home, cluster: str) -> ActivePin:
    return ActivePin(
        tenant=tenant,
        template=home.template,
        cluster=cluster,
        isolation=home.isolation,
        home_id=home.id,
        at=home.pattern_version,
        version=pin.version,
        reason=pin.reason,
        actor=pin.actor,
        created_at=pin.created_at,
        expires_at=pin.expires_at,
    )
