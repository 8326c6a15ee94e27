"""Operations as callers see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control_plane.pools.databases import Databases
from control_plane.registry import operations
from control_plane.registry.models import Operation


@dataclass(frozen=True)
class OperationRecord:
    """Progress of a piece of work: `percent` 0 to 100; `error` {code, status, message, hint} once it has failed."""

    id: UUID
    tenant_id: UUID
    kind: str
    status: str
    percent: int
    message: str | None
    error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None

    @property
    def finished(self) -> bool:
        return self.finished_at is not None


def operation_record(operation: Operation) -> OperationRecord:
    return OperationRecord(
        id=operation.id,
        tenant_id=operation.tenant_id,
        kind=operation.kind,
        status=operation.status,
        percent=operation.percent,
        message=operation.message,
        error=operation.error if operation.status == "failed" else None,
        created_at=operation.created_at,
        updated_at=operation.updated_at,
        finished_at=operation.finished_at,
    )


async def get_operation(databases: Databases, operation_id: UUID) -> OperationRecord:
    """Raises `OperationNotFound`."""
    async with databases.registry() as session:
        return operation_record(await operations.get(session, operation_id))
