"""Writes what happens into the registry, in batches and beside the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from control_plane.errors import ClusterUnavailable
from control_plane.migrator.plan import DueHome
from control_plane.migrator.results import HomeResult
from control_plane.pools.databases import Databases
from control_plane.registry import runs

_SECONDS = 0.5  # between two batches
_LARGEST = 500  # rows of a batch


@dataclass(slots=True)
class Ledger:
    """`add` never waits. A registry that is away costs nothing but memory until it is back or the run ends."""

    databases: Databases
    run_id: UUID
    _waiting: list[HomeResult] = field(default_factory=list)
    _reached: dict[UUID, int] = field(default_factory=dict)

    async def plan(self, homes: Sequence[DueHome]) -> None:
        """Record what is to be done, so that it is known of a run that dies."""
        rows = [
            {
                "home_id": home.home_id,
                "cluster": home.place.cluster.name,
                "tenant": home.slug,
                "from_version": home.version,
                "to_version": home.target,
            }
            for home in homes
        ]
        async with self.databases.registry.begin() as session:
            await runs.record_plan(session, self.run_id, rows)

    def add(self, result: HomeResult) -> None:
        self._waiting.append(result)
        if result.status == "done":
            self.reach(result.home_id, result.to_version)

    def reach(self, home_id: UUID, version: int) -> None:
        """A home is at a version, and may be at its steps for long: requests have to know it."""
        self._reached[home_id] = version

    async def flush(self) -> None:
        """Write everything that waits; raises when the registry cannot be reached, and keeps what is left."""
        while self._waiting or self._reached:
            batch, reached = self._waiting[:_LARGEST], dict(self._reached)
            async with self.databases.registry.begin() as session:
                await runs.record_homes(session, self.run_id, [_row(result) for result in batch])
                await runs.copy_versions(session, reached)
            del self._waiting[: len(batch)]
            self._reached = {home: at for home, at in self._reached.items() if reached.get(home) != at}

    async def keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(_SECONDS)
            try:
                await self.flush()
            except (ClusterUnavailable, DBAPIError, OSError):
                continue  # the last flush, at the end of the run, tells


@asynccontextmanager
async def open_ledger(databases: Databases, run_id: UUID) -> AsyncIterator[Ledger]:
    """The run's ledger, written to while the block runs and flushed when it ends."""
    ledger = Ledger(databases, run_id)
    writer = asyncio.create_task(ledger.keep_flushing())
    try:
        yield ledger
    finally:
        writer.cancel()
        await asyncio.wait([writer])
        await ledger.flush()


def _row(result: HomeResult) -> dict[str, object]:
    return {
        "home_id": result.home_id,
        "cluster": result.cluster,
        "tenant": result.slug,
        "from_version": result.from_version,
        "to_version": result.to_version,
        "status": result.status,
        "sqlstate": result.sqlstate,
        "error": result.error,
        "milliseconds": result.milliseconds,
        "rows_touched": result.touched.rows if result.touched else None,
    }
