"""Writes what happens into the registry, in batches and beside the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from control_plane.errors import ClusterUnavailable
from control_plane.migrator.results import HomeResult
from control_plane.pools.databases import Databases
from control_plane.registry import runs

_SECONDS = 0.25  # between two batches
_LARGEST = 500  # rows of a batch


@dataclass(slots=True)
class Ledger:
    """`add` never waits. A registry that is away costs nothing but memory until it is back or the run ends."""

    databases: Databases
    run_id: UUID
    _waiting: list[HomeResult] = field(default_factory=list)

    def add(self, result: HomeResult) -> None:
        self._waiting.append(result)

    async def flush(self) -> None:
        """Write everything that waits; raises when the registry cannot be reached, and keeps what is left."""
        while self._waiting:
            batch = self._waiting[:_LARGEST]
            async with self.databases.registry.begin() as session:
                await runs.record_homes(
                    session, self.run_id, [_row(result) for result in batch if result.status != "skipped"]
                )
                await runs.copy_versions(
                    session, {result.home_id: result.to_version for result in batch if result.status == "done"}
                )
            del self._waiting[: len(batch)]

    async def keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(_SECONDS)
            try:
                await self.flush()
            except (ClusterUnavailable, DBAPIError, OSError):
                continue  # the last flush, at the end of the run, tells


@asynccontextmanager
async def open_ledger(databases: Databases, template: str, target: int, planned: int) -> AsyncIterator[Ledger]:
    """A new run in the registry, written to while the block runs and flushed when it ends."""
    async with databases.registry.begin() as session:
        run = await runs.start_run(session, template, target, planned)
    async with databases.engine.connect() as pooled:
        connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
        await runs.hold_run(connection, run.id)
        ledger = Ledger(databases, run.id)
        writer = asyncio.create_task(ledger.keep_flushing())
        try:
            yield ledger
        finally:
            writer.cancel()
            await asyncio.wait([writer])
            await ledger.flush()
            await runs.let_go_run(connection, run.id)


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
