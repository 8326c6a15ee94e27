"""Deleting a tenant: closed first, then fenced, then dropped, and forgotten by the registry last."""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.registry import audit, homes, tenants
from control_plane.registry.models import Operation, Tenant
from control_plane.tenants import lifecycle
from control_plane.tenants.steps import Plan, Record, Step, Work


async def intend(session: AsyncSession, tenant: Tenant, actor: str) -> Operation:
    """Mark the (locked) tenant as being deleted; the operation is not saved yet. Raises `InvalidTransition`."""
    tenant.status = lifecycle.require(tenant.status, "delete")
    tenant.epoch = await tenants.next_epoch(session)
    audit.record(session, actor, "tenant.delete", tenant.id, slug=tenant.slug)
    return Operation(id=uuid4(), tenant_id=tenant.id, kind="delete", parameters={"actor": actor})


async def forget(session: AsyncSession, tenant_id: UUID, action: str) -> None:
    """The last word of the registry: the slug is free again, and a home of its own is gone."""
    tenant, home, _ = await tenants.get(session, tenant_id, lock=True)
    tenant.status = lifecycle.require(tenant.status, action)
    tenant.home_id = None
    tenant.deleted_at = func.now()
    await session.flush()
    if home.isolation != "shared":
        await homes.remove(session, home.id)


async def _close(work: Work) -> Record:
    await work.isolation.set_state(work.databases, work.cluster, work.home, work.tenant, "deleting", work.tenant.epoch)
    return _nothing


async def _fence(work: Work) -> Record:
    await work.isolation.fence(work.databases, work.cluster, work.home, work.tenant)
    return _nothing


async def _drop(work: Work) -> Record:
    await work.isolation.drop(work.databases, work.cluster, work.home, work.tenant)

    async def record(session: AsyncSession) -> None:
        await forget(session, work.tenant.id, "remove")
        audit.record(session, work.parameters["actor"], "tenant.remove", work.tenant.id)

    return record


async def _nothing(session: AsyncSession) -> None:
    """The step's name in the operation says it all."""


# Nothing leads back: from the first step on the tenant is closed, so a failure is tried again until it succeeds.
DELETE = Plan(
    kind="delete",
    steps=(
        Step("close", "Refusing new requests", 20, _close),
        Step("fence", "Waiting for running requests", 40, _fence),
        Step("drop", "Removing the data", 100, _drop),
    ),
    undo=None,
)
