"""Counts calls of what is deprecated, in memory, and writes the counts into the registry beside the requests."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import UTC, date, datetime
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from control_plane.errors import ClusterUnavailable
from control_plane.pools.databases import Databases
from control_plane.registry import deprecated_calls
from control_plane.registry.deprecated_calls import Called

logger = logging.getLogger(__name__)

SECONDS = 5.0  # between two writes: what a process that is killed may lose


class DeprecatedCalls:
    """`count` is an addition in memory. A registry that is away costs nothing but memory until it is back.

    The counts are per tenant, day, template, API version and resource, so waiting longer makes no more of them.
    """

    def __init__(self, databases: Databases, *, seconds: float = SECONDS) -> None:
        self._databases = databases
        self._seconds = seconds
        self._waiting: Counter[Called] = Counter()
        self._writer: asyncio.Task[None] | None = None
        self._pruned: date | None = None

    def count(self, tenant_id: UUID, template: str, api: int, resource: str) -> None:
        """One call; needs a running event loop."""
        self._waiting[Called(datetime.now(UTC).date(), tenant_id, template, api, resource)] += 1
        if self._writer is None:
            self._writer = asyncio.create_task(self._keep_writing())

    async def flush(self) -> None:
        """Write what waits; raises when the registry cannot be reached, and keeps what it could not write."""
        batch, self._waiting = self._waiting, Counter()
        today = datetime.now(UTC).date()
        try:
            async with self._databases.registry.begin() as session:
                await deprecated_calls.add(session, batch)
                if self._pruned != today:
                    await deprecated_calls.forget_old(session)
        except BaseException:
            self._waiting.update(batch)
            raise
        self._pruned = today

    async def aclose(self) -> None:
        """Write the rest."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
            self._writer = None
        if self._waiting:
            try:
                await self.flush()
            except (ClusterUnavailable, DBAPIError, OSError):
                logger.warning("%d calls of deprecated resources were not recorded", self._waiting.total())

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                if self._waiting:
                    await self.flush()
            except (ClusterUnavailable, DBAPIError, OSError):
                continue  # the last one, at the end, tells
