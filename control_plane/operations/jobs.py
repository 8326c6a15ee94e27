"""Procrastinate behind three verbs: enqueue, run, repair. The only user of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import procrastinate
from procrastinate.jobs import Job
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.operations.attempts import HEARTBEAT, SILENCE
from control_plane.operations.runner import TryLater

logger = logging.getLogger(__name__)

QUEUE, TASK = "operations", "advance"
AT_ONCE = 4  # jobs per worker
POLL = 2.0  # seconds; jobs become due without a notification
REPAIR = 5.0  # seconds
GRACE = 5.0  # seconds that running jobs get when the worker is stopped
SLOWEST = 60.0  # seconds between two attempts

Advance = Callable[[UUID], Awaitable[None]]

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


class Backoff(procrastinate.BaseRetryStrategy):
    """A job lives until its operation is finished, so every exception means another try."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> procrastinate.RetryDecision:
        tries = exception.attempt if isinstance(exception, TryLater) else 1
        seconds = min(SLOWEST, 2.0**tries) if isinstance(exception, TryLater) else SILENCE / 2
        return procrastinate.RetryDecision(retry_in={"seconds": round(seconds)})


async def enqueue(session: AsyncSession, operation_id: UUID, tenant_id: UUID, delay: float = SILENCE) -> None:
    """Add the job in the transaction of `session`; due in `delay` seconds, one at a time per tenant."""
    await session.execute(
        _ENQUEUE,
        {"queue": QUEUE, "task": TASK, "lock": f"tenant:{tenant_id}", "operation": str(operation_id), "delay": delay},
    )


async def enqueue_forgotten(session: AsyncSession) -> None:
    for operation_id, tenant_id in (await session.execute(_FORGOTTEN, {"silence": SILENCE})).all():
        logger.warning("Operation %s had no job; it gets a new one.", operation_id)
        await enqueue(session, operation_id, tenant_id, 0)


def job_app(dsn: str, advance: Advance) -> procrastinate.App:
    """An application that calls `advance` for each job; its connections open with it."""
    connector = procrastinate.PsycopgConnector(
        conninfo=dsn, min_size=1, max_size=4, timeout=10.0, kwargs={"application_name": "control-plane worker"}
    )
    app = procrastinate.App(connector=connector)

    async def run_job(operation_id: str) -> None:
        await advance(UUID(operation_id))

    app.task(name=TASK, queue=QUEUE, retry=Backoff())(run_job)
    return app


async def run(app: procrastinate.App, stop: asyncio.Event, repair: Callable[[], Awaitable[None]]) -> None:
    """Work until `stop`; raises when the registry goes away."""
    async with app.open_async():
        working = asyncio.create_task(_work(app), name="operations worker")
        repairing = asyncio.create_task(_repair(app, repair), name="operations repair")
        stopping = asyncio.create_task(stop.wait())
        tasks: set[asyncio.Task[Any]] = {working, repairing, stopping}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _work(app: procrastinate.App) -> None:
    await app.run_worker_async(
        queues=[QUEUE],
        concurrency=AT_ONCE,
        fetch_job_polling_interval=POLL,
        update_heartbeat_interval=HEARTBEAT,
        stalled_worker_timeout=SILENCE,
        shutdown_graceful_timeout=GRACE,
        delete_jobs="successful",
        install_signal_handlers=False,
    )


async def _repair(app: procrastinate.App, repair: Callable[[], Awaitable[None]]) -> None:
    """Return the jobs of dead workers to the queue. That a job might run twice is what attempts are for."""
    while True:
        for job in await app.job_manager.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=SILENCE):
            await app.job_manager.retry_job(job)
        await repair()
        await asyncio.sleep(REPAIR)
