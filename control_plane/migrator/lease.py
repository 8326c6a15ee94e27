"""A run has a runner, or several, and operators who may want something of it; both are written in the registry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from control_plane.errors import ClusterUnavailable
from control_plane.migrator.reins import Reins
from control_plane.pools.databases import Databases
from control_plane.registry import pins, runs

logger = logging.getLogger(__name__)

SECONDS = 1.0  # between two heartbeats; a wish of an operator takes effect within that time


@dataclass(slots=True)
class Lease:
    """Beats once a second and obeys. A registry that is away stops nothing: the databases have the state."""

    databases: Databases
    run_id: UUID
    template: str
    reins: Reins
    wave: str | None = None

    async def beat(self) -> None:
        """Say that the run is alive, and do what is wished. Raises when the registry cannot be reached."""
        async with self.databases.registry.begin() as session:
            said = await runs.beat(session, self.run_id, self.wave)
            self.reins.pins = {pin.home_id: pin.version for pin in await pins.active(session, self.template)}
        if said is None or said.wish == "abort" or said.status == "aborted":
            self.reins.abort("it was aborted")
        elif said.status not in runs.OPEN:
            self.reins.halt(said.reason or "another runner of it stopped")
        elif said.wish == "pause":
            self.reins.pause()
        else:
            self.reins.go_on()

    async def pause(self) -> None:
        """Wish for a pause, which an operator ends."""
        async with self.databases.registry.begin() as session:
            await runs.wish(session, self.run_id, "pause")
        await self.beat()

    async def keep_beating(self) -> None:
        while True:
            await asyncio.sleep(SECONDS)
            try:
                await self.beat()
            except (ClusterUnavailable, DBAPIError, OSError):
                logger.warning("run %s cannot say that it is alive: the registry does not answer", self.run_id)

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Once now, and once a second while the block runs."""
        await self.beat()
        task = asyncio.create_task(self.keep_beating())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


@asynccontextmanager
async def hold(databases: Databases, run_id: UUID, template: str, reins: Reins) -> AsyncIterator[Lease]:
    """The run is known to have a runner while the block runs, and for as long as this process lives."""
    async with databases.engine.connect() as pooled:
        connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
        await runs.hold_run(connection, run_id)
        try:
            yield Lease(databases, run_id, template, reins)
        finally:
            await runs.let_go_run(connection, run_id)
