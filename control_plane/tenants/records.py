"""Tenants as callers see them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from control_plane.errors import InvalidInput, InvalidSlug
from control_plane.pools.databases import Databases
from control_plane.registry import tenants
from control_plane.registry.tenants import Described
from control_plane.tenants.slug import validate_slug


@dataclass(frozen=True)
class TenantRecord:
    """A tenant; `template`, `pattern_version` and `cluster` are None once it is deleted."""

    id: UUID
    slug: str
    name: str
    isolation: str
    status: str
    plan: str | None
    template: str | None
    pattern_version: int | None
    cluster: str | None
    labels: dict[str, str]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Page:
    items: list[TenantRecord]
    next_cursor: str | None


def tenant_record(row: Described) -> TenantRecord:
    tenant, template, pattern_version, cluster = row
    return TenantRecord(
        id=tenant.id,
        slug=tenant.slug,
        name=tenant.name,
        isolation=tenant.isolation,
        status=tenant.status,
        plan=tenant.plan,
        template=template,
        pattern_version=pattern_version,
        cluster=cluster,
        labels=tenant.labels,
        created_at=tenant.created_at,
        updated_at=tenant.updated_at,
    )


async def get_tenant(databases: Databases, ref: str | UUID) -> TenantRecord:
    """The tenant with this slug or id; raises `TenantNotFound`, also for deleted ones."""
    async with databases.registry() as session:
        return tenant_record(await tenants.describe(session, ref))


async def list_tenants(
    databases: Databases,
    *,
    status: str | None = None,
    isolation: str | None = None,
    version: int | None = None,
    cluster: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Page:
    """A page in the order of the slugs; deleted tenants only with `status="deleted"`. Raises `InvalidInput`."""
    after = _decode(cursor) if cursor is not None else None
    async with databases.registry() as session:
        rows = await tenants.page(
            session,
            status=status,
            isolation=isolation,
            version=version,
            cluster=cluster,
            after=after,
            limit=limit + 1,
        )
    items = [tenant_record(row) for row in rows[:limit]]
    return Page(items, _encode(items[-1]) if len(rows) > limit else None)


def _encode(last: TenantRecord) -> str:
    return base64.urlsafe_b64encode(f"{last.slug} {last.id}".encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[str, UUID]:
    try:
        slug, tenant_id = (
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode("ascii").split()
        )
        if not slug.isprintable():
            raise ValueError(slug)
        return validate_slug(slug), UUID(tenant_id)
    except (ValueError, binascii.Error, InvalidSlug):
        raise InvalidInput("The cursor is not one that a list of tenants returned.") from None
