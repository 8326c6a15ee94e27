"""`cp adopt sync` and `cp adopt check`: projections follow their tables, and it shows when they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from control_plane.adoption.building import CHUNK, Listener, Walked, walk
from control_plane.adoption.work import Work, mapping_of, open_work
from control_plane.pools.databases import Databases
from control_plane.registry.models import AdoptedTable


@dataclass(frozen=True)
class Drift:
    """Rows of the table that the projection misses, has differently, and has though they are gone.

    `state` is that of the table: nothing can be compared while it is suspended, and all counts are 0 then.
    """

    table: str
    state: str
    projected: int = 0
    missing: int = 0
    stale: int = 0
    extra: int = 0
    samples: dict[str, list[Any]] = field(default_factory=dict)
    synced_at: str | None = None  # when a row of the projection was last written
    last_sync_at: datetime | None = None  # when a walk last went through

    @property
    def rows(self) -> int:
        """How many rows lag behind."""
        return self.missing + self.stale + self.extra


async def sync(
    databases: Databases,
    name: str,
    tables: Sequence[str] | None = None,
    *,
    chunk: int = CHUNK,
    listener: Listener | None = None,
) -> list[Walked]:
    """Walk through `tables` (all active ones when None) and put right what differs.

    Raises `AdoptionNotFound`, `AdoptionConflict`, `AdoptionRefused` when a key is not unique any more.
    """
    async with open_work(databases, name) as work:
        return [await walk(work, table, chunk, listener) for table in _chosen(work, tables) if table.state == "active"]


async def check(databases: Databases, name: str, tables: Sequence[str] | None = None) -> list[Drift]:
    """Compare without changing anything. Raises `AdoptionNotFound`, `AdoptionConflict`."""
    async with open_work(databases, name) as work:
        return [await drift_of(work, table) for table in _chosen(work, tables)]


async def drift_of(work: Work, table: AdoptedTable) -> Drift:
    label = mapping_of(table).label
    if table.state != "active":
        return Drift(label, table.state, last_sync_at=table.last_sync_at)
    found = await work.connection.fetchval(f"SELECT {work.ground.qualified('drift')}($1)", label)
    return Drift(label, table.state, last_sync_at=table.last_sync_at, **found)


def _chosen(work: Work, tables: Sequence[str] | None) -> list[AdoptedTable]:
    return work.tables if tables is None else [work.table(name) for name in tables]
