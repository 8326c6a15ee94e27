"""Changes that take effect while the caller waits: descriptive fields, suspend, resume."""

from __future__ import annotations

from enum import Enum
from typing import Literal
from uuid import UUID

from control_plane.isolation import isolation_of
from control_plane.pools.databases import Databases
from control_plane.registry import audit, tenants
from control_plane.tenants import lifecycle
from control_plane.tenants.records import TenantRecord, tenant_record


class Unset(Enum):
    """The value of an argument that was not given, where None is a value."""

    UNSET = "unset"


UNSET = Unset.UNSET


async def update_tenant(
    databases: Databases,
    ref: str | UUID,
    *,
    actor: str,
    name: str | Literal[Unset.UNSET] = UNSET,
    plan: str | Literal[Unset.UNSET] | None = UNSET,
    labels: dict[str, str] | Literal[Unset.UNSET] = UNSET,
) -> TenantRecord:
    """Change what is given; `labels` replaces all labels. Raises `TenantNotFound`, `InvalidTransition`."""
    given = {"name": name, "plan": plan, "labels": labels}
    changes = {field: value for field, value in given.items() if value is not UNSET}
    async with databases.registry.begin() as session:
        tenant = (await tenants.get(session, ref, lock=True)).tenant
        lifecycle.require(tenant.status, "update")
        changes = {field: value for field, value in changes.items() if getattr(tenant, field) != value}
        if changes:
            for field, value in changes.items():
                setattr(tenant, field, value)
            audit.record(session, actor, "tenant.update", tenant.id, fields=sorted(changes))
            await session.flush()
            await session.refresh(tenant)
        return tenant_record(await tenants.describe(session, tenant.id))


async def suspend_tenant(databases: Databases, ref: str | UUID, *, actor: str) -> TenantRecord:
    """Refuse the tenant's requests from now on. Raises `TenantNotFound`, `InvalidTransition`, `ClusterUnavailable`."""
    return await _set_state(databases, ref, "suspend", actor)


async def resume_tenant(databases: Databases, ref: str | UUID, *, actor: str) -> TenantRecord:
    """Serve the tenant again. Raises `TenantNotFound`, `InvalidTransition`, `ClusterUnavailable`."""
    return await _set_state(databases, ref, "resume", actor)


async def _set_state(databases: Databases, ref: str | UUID, action: str, actor: str) -> TenantRecord:
    """The tenant's database first, the registry's commit after it, under the lock of the tenant's row.

    What the registry says has thus always happened. A crash in between leaves a database that is an epoch ahead: such
    a tenant is refused, never served by mistake, and asking again (for either state) brings both together, because the
    state is set again even when the registry already has it.
    """
    async with databases.registry.begin() as session:
        tenant, home, cluster = await tenants.get(session, ref, lock=True)
        before, tenant.status = tenant.status, lifecycle.require(tenant.status, action)
        tenant.epoch = await tenants.next_epoch(session)
        await isolation_of(tenant.isolation).set_state(databases, cluster, home, tenant, tenant.status, tenant.epoch)
        if tenant.status != before:
            audit.record(session, actor, f"tenant.{action}", tenant.id)
        await session.flush()
        await session.refresh(tenant)
        return tenant_record(await tenants.describe(session, tenant.id))
