"""Audit events: appended in the transaction of what they tell about."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.registry.models import AuditEvent


def record(session: AsyncSession, actor: str, action: str, tenant_id: UUID | None = None, **details: Any) -> None:
    """`action` is noun.verb (`tenant.suspend`); `details` must be JSON and hold no secrets."""
    session.add(AuditEvent(actor=actor, action=action, tenant_id=tenant_id, details=details))
