"""The jobs that make somebody come back to an operation or a run: rows of Procrastinate's, written in our transactions.

A job lives until what it names is finished: whatever it raises means that it comes back.
"""

from __future__ import annotations

import logging
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

logger = logging.getLogger(__name__)

QUEUE, TASK = "operations", "advance"
# Of their own: a run takes hours, or days when it is paused, and must not keep an operation waiting.
RUN_QUEUE, RUN_TASK = "migrations", "migrate"


class Held(Exception):
    """Somebody else works on it: the job looks again later."""


_ENQUEUE = text(
    """
    SELECT procrastinate_defer_jobs_v1(ARRAY[ROW(
        :queue, :task, 0, :lock, NULL, jsonb_build_object(CAST(:name AS text), CAST(:id AS text)),
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

_FORGOTTEN_RUNS = text(
    """
    SELECT run.id
    FROM runs AS run
    WHERE run.durable AND run.status IN ('queued', 'running', 'paused')
      AND NOT EXISTS (
          SELECT FROM procrastinate_jobs AS job
          WHERE job.lock = 'run:' || run.id AND job.status IN ('todo', 'doing')
      )
    FOR UPDATE SKIP LOCKED
    """
)


async def enqueue(session: AsyncSession, operation_id: UUID, tenant_id: UUID, *, delay: float) -> None:
    """Add the job in the transaction of `session`; due in `delay` seconds, one at a time per tenant."""
    await _enqueue(session, QUEUE, TASK, f"tenant:{tenant_id}", "operation_id", operation_id, delay)


async def enqueue_run(session: AsyncSession, run_id: UUID) -> None:
    """Add the job of a durable run in the transaction of `session`; due at once."""
    await _enqueue(session, RUN_QUEUE, RUN_TASK, f"run:{run_id}", "run_id", run_id, 0)


async def enqueue_forgotten(session: AsyncSession, silence: float) -> None:
    """Give a job to every open operation that has none and was not heard of for `silence` seconds, and to such runs."""
    for operation_id, tenant_id in (await session.execute(_FORGOTTEN, {"silence": silence})).all():
        logger.warning("Operation %s had no job; it gets a new one.", operation_id)
        await enqueue(session, operation_id, tenant_id, delay=0)
    for run_id in (await session.scalars(_FORGOTTEN_RUNS)).all():
        logger.warning("Run %s had no job; it gets a new one.", run_id)
        await enqueue_run(session, run_id)


async def _enqueue(session: AsyncSession, queue: str, task: str, lock: str, name: str, id_: UUID, delay: float) -> None:
    values = {"queue": queue, "task": task, "lock": lock, "name": name, "id": str(id_), "delay": delay}
    await session.execute(_ENQUEUE, values)
