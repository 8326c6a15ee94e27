"""Pins: a tenant is taken no further than a version, for a reason and until a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select

from control_plane.errors import InvalidInput, NotPinnable, PinNotFound, VersionConflict
from control_plane.pools.databases import Databases
from control_plane.registry import audit, pins, tenants
from control_plane.registry.models import PIN_DAYS
from control_plane.registry.pins import ActivePin
from control_plane.templates import Templates
from control_plane.tenants import lifecycle

LONGEST = timedelta(days=PIN_DAYS)
MAX_REASON = 500  # characters


@dataclass(frozen=True, slots=True)
class PinRecord:
    """A pin that has not expired: `version` is how far the tenant may be taken, `at` where its home is now."""

    tenant: str
    template: str
    cluster: str
    isolation: str
    at: int
    version: int
    reason: str
    actor: str
    created_at: datetime
    expires_at: datetime


async def pin_tenant(
    databases: Databases,
    templates: Templates,
    ref: str | UUID,
    *,
    version: int | None = None,
    reason: str,
    expires: datetime | timedelta,
    actor: str,
) -> PinRecord:
    """Let no run take the tenant past `version` (None = the one that it is at) until `expires`, a moment or from now.

    It takes the place of a pin that the tenant has; a run that is under way heeds it within two seconds. Raises
    `TenantNotFound`, `InvalidTransition`, `NotPinnable`, `TemplateNotFound`, `VersionConflict` for a version that
    the tenant is past, and `InvalidInput`.
    """
    if not 0 < len(reason.strip()) <= MAX_REASON or not reason.isprintable():
        raise InvalidInput(f"The reason is no printable text of 1 to {MAX_REASON} characters.")
    async with databases.registry.begin() as session:
        tenant, home, _ = await tenants.get(session, ref, lock=True)
        lifecycle.require(tenant.status, "update")
        if home.isolation == "shared":
            raise NotPinnable(f"'{tenant.slug}' is a shared tenant and cannot be pinned: its home is everybody's.")
        version = home.pattern_version if version is None else templates[home.template].version(version).number
        if version < home.pattern_version or version < 1:
            raise VersionConflict(
                f"'{tenant.slug}' is at version {home.pattern_version} and cannot be pinned to version {version}.",
                hint="A template version is never taken back: pin it to the version that it is at, or a later one.",
            )
        now: datetime = (await session.execute(select(func.now()))).scalar_one()
        expires_at = _moment(now, expires)
        await pins.put(session, tenant.id, version=version, reason=reason, actor=actor, expires_at=expires_at)
        audit.record(
            session,
            actor,
            "tenant.pin",
            tenant.id,
            version=version,
            reason=reason,
            expires_at=expires_at.isoformat(),
        )
        found = await pins.of_tenant(session, tenant.id)
        assert found is not None
        return _record(found)


async def unpin_tenant(databases: Databases, ref: str | UUID, *, actor: str) -> None:
    """Let runs take the tenant along again. Raises `TenantNotFound`, `PinNotFound`."""
    async with databases.registry.begin() as session:
        tenant = (await tenants.get(session, ref, lock=True)).tenant
        if not await pins.remove(session, tenant.id):
            raise PinNotFound(f"'{tenant.slug}' is not pinned.")
        audit.record(session, actor, "tenant.unpin", tenant.id)


async def get_pin(databases: Databases, ref: str | UUID) -> PinRecord:
    """Raises `TenantNotFound`, `PinNotFound`."""
    async with databases.registry() as session:
        tenant = (await tenants.get(session, ref)).tenant
        found = await pins.of_tenant(session, tenant.id)
        if found is None:
            raise PinNotFound(f"'{tenant.slug}' is not pinned.")
        return _record(found)


async def list_pins(databases: Databases) -> list[PinRecord]:
    """Those that have not expired, by slug."""
    async with databases.registry() as session:
        return [_record(each) for each in await pins.active(session)]


def _moment(now: datetime, expires: datetime | timedelta) -> datetime:
    if isinstance(expires, timedelta):
        expires = now + min(expires, 2 * LONGEST)  # what is far too long is refused, and does not overflow
    if expires.tzinfo is None:
        raise InvalidInput("The end of the pin has no time zone.", hint="Write 2026-03-01T12:00:00Z.")
    if not now < expires <= now + LONGEST:
        raise InvalidInput(
            f"A pin ends in the future, and within {PIN_DAYS} days.",
            hint=f"At the latest {now + LONGEST:%Y-%m-%dT%H:%M:%S%z}. A pin can be made again before it ends.",
        )
    return expires


def _record(pin: ActivePin) -> PinRecord:
    return PinRecord(
        tenant=pin.tenant,
        template=pin.template,
        cluster=pin.cluster,
        isolation=pin.isolation,
        at=pin.at,
        version=pin.version,
        reason=pin.reason,
        actor=pin.actor,
        created_at=pin.created_at,
        expires_at=pin.expires_at,
    )
