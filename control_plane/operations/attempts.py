"""The attempts that this process holds, kept alive by one heartbeat."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.operations.failures import PASSING
from control_plane.operations.timing import Timing
from control_plane.pools.databases import Databases
from control_plane.registry import operations
from control_plane.registry.models import Operation

logger = logging.getLogger(__name__)


class AttemptLost(Exception):
    """Another process holds the operation, or it is finished: nothing of this attempt may be written any more."""


class Attempts:
    """Holding an operation means: its row carries our attempt, and we write a heartbeat for it."""

    def __init__(self, databases: Databases, timing: Timing) -> None:
        self._databases = databases
        self._timing = timing
        self._held: dict[UUID, int] = {}
        self._heart: asyncio.Task[None] | None = None

    async def claim(self, operation_id: UUID) -> Operation | None:
        """Take over an operation whose holder fell silent; None when it is alive."""
        async with self._databases.registry.begin() as session:
            return await operations.claim(session, operation_id, self._timing.silence)

    @contextmanager
    def holding(self, operation_id: UUID, attempt: int) -> Iterator[None]:
        """Keep the attempt alive while the body runs."""
        self._held[operation_id] = attempt
        if self._heart is None or self._heart.done():
            self._heart = asyncio.create_task(self._beat(), name="operations heartbeat")
        try:
            yield
        finally:
            if self._held.get(operation_id) == attempt:
                del self._held[operation_id]

    @asynccontextmanager
    async def fence(self, operation_id: UUID, attempt: int) -> AsyncIterator[tuple[AsyncSession, Operation]]:
        """A registry transaction that only the holder can be in; raises `AttemptLost`."""
        async with self._databases.registry.begin() as session:
            operation = await operations.hold(session, operation_id, attempt)
            if operation is None:
                raise AttemptLost
            yield session, operation

    async def release(self, operation_id: UUID, attempt: int, message: str | None = None) -> None:
        async with self._databases.registry.begin() as session:
            await operations.release(session, operation_id, attempt, message)

    async def _beat(self) -> None:
        while self._held:
            await asyncio.sleep(self._timing.heartbeat)
            if held := dict(self._held):
                try:
                    async with self._databases.engine.connect() as pooled:
                        connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
                        await operations.beat(connection, held)
                except PASSING as error:
                    logger.warning("No heartbeat: the registry does not answer (%s).", type(error).__name__)

    async def aclose(self) -> None:
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)
