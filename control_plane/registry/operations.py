"""Operations, the attempts that hold them, and the idempotency keys that lead to them.

All times are the registry's, so the processes' clocks do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from control_plane.errors import OperationNotFound
from control_plane.registry.conflicts import domain_errors
from control_plane.registry.models import IdempotencyKey, Operation

OPEN = ("queued", "running")


async def add(session: AsyncSession, operation: Operation) -> None:
    """Add the operation, held by the caller as attempt 1. Raises `OperationInProgress`."""
    operation.status, operation.attempt, operation.heartbeat_at = "running", 1, func.now()
    session.add(operation)
    with domain_errors():
        await session.flush()


async def get(session: AsyncSession, operation_id: UUID) -> Operation:
    """Raises `OperationNotFound`."""
    operation = await session.get(Operation, operation_id)
    if operation is None:
        raise OperationNotFound
    return operation


async def open_on(session: AsyncSession, tenant_id: UUID) -> Operation | None:
    query = select(Operation).where(Operation.tenant_id == tenant_id, Operation.status.in_(OPEN))
    return (await session.scalars(query)).one_or_none()


async def claim(session: AsyncSession, operation_id: UUID, silence: float) -> Operation | None:
    """Take the open operation over, with a new attempt; None while its holder was heard of within `silence` seconds."""
    silent = or_(
        Operation.heartbeat_at.is_(None),
        Operation.heartbeat_at < func.now() - text("make_interval(secs => :silence)").bindparams(silence=silence),
    )
    query = (
        update(Operation)
        .where(Operation.id == operation_id, Operation.status.in_(OPEN), silent)
        .values(status="running", attempt=Operation.attempt + 1, heartbeat_at=func.now())
        .returning(Operation)
    )
    return (await session.scalars(query, execution_options={"populate_existing": True})).one_or_none()


async def hold(session: AsyncSession, operation_id: UUID, attempt: int) -> Operation | None:
    """The operation, locked until the transaction ends, if `attempt` still holds it: the fence of every step."""
    query = (
        select(Operation)
        .where(Operation.id == operation_id, Operation.attempt == attempt, Operation.status == "running")
        .with_for_update()
    )
    return (await session.scalars(query, execution_options={"populate_existing": True})).one_or_none()


async def beat(connection: AsyncConnection, attempts: Mapping[UUID, int]) -> None:
    """A sign of life for the attempts (operation id to attempt) that this process holds.

    `connection` is in autocommit: a process that is paused within a transaction would keep its rows from whoever is to
    replace it.
    """
    await connection.execute(
        update(Operation)
        .where(tuple_(Operation.id, Operation.attempt).in_(attempts.items()), Operation.status == "running")
        .values(heartbeat_at=func.now(), updated_at=Operation.updated_at)
    )


async def release(session: AsyncSession, operation_id: UUID, attempt: int, message: str | None) -> None:
    """Let go of an open operation, so that the next attempt need not wait for the silence."""
    values: dict[str, Any] = {"heartbeat_at": None}
    if message is not None:
        values["message"] = message
    await session.execute(
        update(Operation)
        .where(Operation.id == operation_id, Operation.attempt == attempt, Operation.status == "running")
        .values(values)
    )


async def by_key(session: AsyncSession, subject: str, key: str) -> IdempotencyKey | None:
    return await session.get(IdempotencyKey, (subject, key))


async def bind_key(
    session: AsyncSession,
    subject: str,
    key: str,
    request_hash: str,
    *,
    operation_id: UUID | None = None,
    run_id: UUID | None = None,
) -> None:
    """To an operation or to a run. Raises `IntegrityError` when another request has bound the key meanwhile."""
    session.add(
        IdempotencyKey(subject=subject, key=key, request_hash=request_hash, operation_id=operation_id, run_id=run_id)
    )
    await session.flush()
