"""The worker: Procrastinate's, watched. It is the only user of that package's Python side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import procrastinate
from procrastinate.jobs import Job

from control_plane.operations.jobs import QUEUE, RUN_QUEUE, RUN_TASK, TASK, enqueue_forgotten
from control_plane.operations.runner import TryLater
from control_plane.operations.timing import Timing
from control_plane.pools.databases import Databases

AT_ONCE = 4  # operations per worker
RUNS_AT_ONCE = 8  # runs per worker; each keeps one connection of the registry, also while it is paused

Advance = Callable[[UUID], Awaitable[None]]
Migrate = Callable[[UUID, asyncio.Event], Awaitable[None]]


class Backoff(procrastinate.BaseRetryStrategy):
    """A job lives until its operation or run is finished, so every exception means another try."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> procrastinate.RetryDecision:
        if isinstance(exception, TryLater):
            seconds = min(self._timing.longest, 2.0**exception.attempt)
        else:  # somebody else works on it, or the registry was away
            seconds = self._timing.silence / 2
        return procrastinate.RetryDecision(retry_in={"milliseconds": round(seconds * 1000)})


class Worker:
    """Calls `advance` with the id of each operation whose job is due, and `migrate` with that of a run.

    `migrate` is told when to stop, and then has `Timing.drain` seconds to come to an end by itself.
    """

    def __init__(self, databases: Databases, advance: Advance, migrate: Migrate, timing: Timing) -> None:
        self._databases = databases
        self._advance = advance
        self._migrate = migrate
        self._timing = timing

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; raises when the registry goes away."""
        ending = asyncio.Event()  # also when the worker ends for another reason
        app = self._app(ending)
        async with app.open_async():
            tasks: set[asyncio.Task[Any]] = {
                asyncio.create_task(self._work(app, QUEUE, AT_ONCE, self._timing.grace), name="operations worker"),
                asyncio.create_task(self._work(app, RUN_QUEUE, RUNS_AT_ONCE, self._timing.drain), name="run worker"),
                asyncio.create_task(self._repair(app), name="operations repair"),
                asyncio.create_task(stop.wait()),
            }
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                ending.set()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _app(self, ending: asyncio.Event) -> procrastinate.App:
        connector = procrastinate.PsycopgConnector(
            conninfo=self._databases.registry_dsn,
            min_size=1,
            max_size=6,  # two of them wait for notices
            timeout=10.0,
            kwargs={"application_name": "control-plane worker"},
        )
        app = procrastinate.App(connector=connector)

        async def run_job(operation_id: str) -> None:
            await self._advance(UUID(operation_id))

        async def migrate_job(run_id: str) -> None:
            await self._migrate(UUID(run_id), ending)

        app.task(name=TASK, queue=QUEUE, retry=Backoff(self._timing))(run_job)
        app.task(name=RUN_TASK, queue=RUN_QUEUE, retry=Backoff(self._timing))(migrate_job)
        return app

    async def _work(self, app: procrastinate.App, queue: str, at_once: int, grace: float) -> None:
        await app.run_worker_async(
            queues=[queue],
            concurrency=at_once,
            fetch_job_polling_interval=self._timing.poll,
            update_heartbeat_interval=self._timing.heartbeat,
            stalled_worker_timeout=self._timing.silence,
            shutdown_graceful_timeout=grace,
            delete_jobs="successful",
            install_signal_handlers=False,
        )

    async def _repair(self, app: procrastinate.App) -> None:
        """Return the jobs of dead workers to the queue. That one may run twice is what attempts and leases are for."""
        while True:
            for queue in (QUEUE, RUN_QUEUE):
                for job in await app.job_manager.get_stalled_jobs(
                    queue=queue, seconds_since_heartbeat=self._timing.silence
                ):
                    await app.job_manager.retry_job(job)
            async with self._databases.registry.begin() as session:
                await enqueue_forgotten(session, self._timing.silence)
            await asyncio.sleep(self._timing.repair)
