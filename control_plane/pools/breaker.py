"""Logins to one cluster: few at a time, and hardly any while it cannot be reached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from control_plane.errors import ClusterUnavailable

BACKOFF = 1.0  # seconds without a new attempt on a cluster that cannot be reached
LOGINS = 8  # at a time: a server that comes back has not to take all of them at once


class Breaker:
    """`async with breaker.login():` around each login.

    After a failure to reach the cluster one login at a time is tried, and others are refused meanwhile: requests do not
    all wait for the same timeout.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logins = asyncio.Semaphore(LOGINS)
        self._failed = False
        self._trying = False  # after a failure
        self._retry_at = 0.0

    @asynccontextmanager
    async def login(self) -> AsyncIterator[None]:
        """Raises `ClusterUnavailable` without an attempt; every other outcome means that it is there."""
        self._admit()
        async with self._logins:
            self._admit()
            trial = self._trying = self._failed
            try:
                yield
            except ClusterUnavailable:
                self._failed = True
                self._retry_at = self._clock() + BACKOFF
                raise
            except Exception:
                self._failed = False
                raise
            else:
                self._failed = False
            finally:
                if trial:
                    self._trying = False

    def _admit(self) -> None:
        if self._failed and (self._trying or self._clock() < self._retry_at):
            raise ClusterUnavailable
