"""The jobs that make somebody come back to an operation: rows of Procrastinate's, written in our own transactions."""

from __future__ import annotations

import logging
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

logger = logging.getLogger(__name__)

QUEUE, TASK = "operations", "advance"

_ENQUEUE = text(
    """
    SELECT procrastinate_defer_jobs_v1(ARRAY[ROW(
        :queue, :task, 0, :lock, NULL, jsonb_build_object('operation_id', CAST(:operation AS text)),
        now() + make_interval(secs => :delay)
    )::procrastinate_job_to_defer_v1])
    """
)

# Operations that nobody holds and no job will come to: a worker that was paused and replaced may finish the job of its
# successor, and a successor that dies then leaves nothing in the queue.
_FORGOTTEN = text(
    """
    SELECT operation.id, operation.tenant_id
    FROM operations AS operation
    WHERE operation.status IN ('queued', 'running')
      AND (operation.heartbeat_at IS NULL OR operation.heartbeat_at < now() - make_interval(secs => :silence))
      AND NOT EXISTS (
          SELECT FROM procrastinate_jobs AS job
          WHERE job.lock = 'tenant:' || operation.tenant_id
            AND job.status IN ('todo', 'doing')
            AND job.args ->> 'operation_id' = CAST(operation.id AS text)
      )
    FOR UPDATE SKIP LOCKED
    """
)


async def enqueue(session: AsyncSession, operation_id: UUID, tenant_id: UUID, *, delay: float) -> None:
    """Add the job in the transaction of `session`; due in `delay` seconds, one at a time per tenant."""
    await session.execute(
        _ENQUEUE,
        {"queue": QUEUE, "task": TASK, "lock": f"tenant:{tenant_id}", "operation": str(operation_id), "delay": delay},
    )


async def enqueue_forgotten(session: AsyncSession, silence: float) -> None:
    """Give a job to every open operation that has none and was not heard of for `silence` seconds."""
    for operation_id, tenant_id in (await session.execute(_FORGOTTEN, {"silence": silence})).all():
        logger.warning("Operation %s had no job; it gets a new one.", operation_id)
        await enqueue(session, operation_id, tenant_id, delay=0)
