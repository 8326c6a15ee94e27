"""What a request does about a failure before its caller hears of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import asyncpg

from control_plane.errors import NotFound, StaleEpoch, TenantMoving
from control_plane.pools.connect import UNREACHABLE
from control_plane.pools.placement import Placement, Placements
from control_plane.problems import database_error

T = TypeVar("T")

# What an attempt may fail with, beside refusals that are final.
FAILURES: tuple[type[BaseException], ...] = (asyncpg.PostgresError, *UNREACHABLE)

RETRIED: tuple[type[BaseException], ...] = (StaleEpoch, *FAILURES)

COLLISIONS = frozenset({"40001", "40P01"})
COLLISION_RETRIES = 3
# The tenant is not where we thought: old epoch, not here, or schema, view and function gone. A statement is parsed
# before its gate runs, so a dropped home shows as a missing view.
MISPLACED = frozenset({"TN404", "TN409", "3F000", "42P01", "42883"})


class Attempts:
    """Runs one attempt at a request, and more where that is safe: a failed statement has left nothing behind."""

    def __init__(self, placements: Placements) -> None:
        self._placements = placements

    async def run(self, tenant_id: UUID | None, attempt: Callable[[Placement], Awaitable[T]], *, repeatable: bool) -> T:
        """`repeatable` says that the request may run again although an outcome is unknown."""
        assert tenant_id is not None  # of a tenant principal
        placement = self._placements.fresh(tenant_id) or await self._placements.resolve(tenant_id)
        try:
            return await attempt(placement)
        except NotFound:
            newer = await self._placements.refresh(placement)
            if newer.pattern_version == placement.pattern_version:
                raise
            return await attempt(newer)
        except RETRIED as error:
            return await self._again(placement, attempt, error, repeatable)

    async def _again(
        self, placement: Placement, attempt: Callable[[Placement], Awaitable[T]], error: BaseException, repeatable: bool
    ) -> T:
        collisions, relocated, reconnected = 0, False, not repeatable
        while True:
            state = getattr(error, "sqlstate", None)
            if state in COLLISIONS and collisions < COLLISION_RETRIES:
                collisions += 1
                await asyncio.sleep(random.uniform(0, 0.01 * 2**collisions))  # noqa: S311 - jitter
            elif not relocated and (state in MISPLACED or isinstance(error, StaleEpoch)):
                relocated = True
                self._placements.forget(placement.tenant_id)
                placement = await self._placements.resolve(placement.tenant_id)
            elif not reconnected and _lost(error):
                reconnected = True
            elif state == "TN409" or isinstance(error, StaleEpoch):
                raise TenantMoving from error
            else:
                raise database_error(error) from error
            try:
                return await attempt(placement)
            except RETRIED as next_error:
                error = next_error


def _lost(error: BaseException) -> bool:
    """The connection broke; a statement that ran out of time is not tried again."""
    return isinstance(error, UNREACHABLE) and not isinstance(error, TimeoutError)
