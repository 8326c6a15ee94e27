"""What a worker does by the clock: it compares projections with their definitions and deletes what is too old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sqlalchemy import text

from control_plane.pools.databases import Databases
from control_plane.templates import Templates
from control_plane.tenants.drift import check_drift
from control_plane.tenants.purge import purge

logger = logging.getLogger(__name__)

PURGE_INTERVAL = 3600.0  # seconds
FIRST = 60.0  # seconds after the start, so that a program that is restarted often does it too

# Of several workers one does a piece of work at a time; the others leave it out.
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('control-plane.upkeep:' || :work, 0))")


class Upkeep:
    """`drift_interval` in seconds; 0 = projections are not compared."""

    def __init__(self, databases: Databases, templates: Templates, drift_interval: float) -> None:
        self._databases = databases
        self._templates = templates
        self._drift_interval = drift_interval

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. What fails is logged and tried again at the next time."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(stop, self.purge, PURGE_INTERVAL))
            if self._drift_interval > 0:
                group.create_task(self._repeat(stop, self.report_drift, self._drift_interval))

    async def report_drift(self) -> int:
        """Log a warning per projection that differs from its definition; how many there are."""
        found = 0
        async for drift in check_drift(self._databases, self._templates):
            if drift.left:
                found += 1
                logger.warning(
                    "projection drift: tenant=%s projection=%s compared=%d drifted=%d problem=%s",
                    drift.tenant,
                    drift.projection,
                    drift.compared,
                    drift.drifted,
                    drift.problem or "-",
                    extra={
                        "tenant": drift.tenant,
                        "projection": drift.projection,
                        "compared": drift.compared,
                        "drifted": drift.drifted,
                    },
                )
        return found

    async def purge(self) -> None:
        deleted = await purge(self._databases)
        logger.info("Purged %s.", ", ".join(f"{number} rows of {table}" for table, number in deleted.items()))

    async def _repeat(self, stop: asyncio.Event, work: Callable[[], Awaitable[object]], interval: float) -> None:
        await pause(stop, min(FIRST, interval))
        while not stop.is_set():
            try:
                await self._alone(work)
            except Exception as error:
                logger.warning("The worker's upkeep failed and is tried again.", exc_info=error)
            await pause(stop, interval)

    async def _alone(self, work: Callable[[], Awaitable[object]]) -> None:
        name = work.__name__
        async with self._databases.registry.begin() as session:
            if (await session.execute(_LOCK, {"work": name})).scalar_one():
                await work()


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Until `stop`, and no longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
