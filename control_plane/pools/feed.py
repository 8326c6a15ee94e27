"""Hears from the registry what has changed there: where tenants live, and which tokens were taken back.

Notices are sent by triggers of the registry's tables, carry an id and nothing else, and only make the process look
sooner. What makes it look at all is the clock: a connection that is silent, hung or cut is found out by its next look.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal
from uuid import UUID

import asyncpg

from control_plane.errors import ControlPlaneError
from control_plane.identity.revocations import Revocation, Revocations
from control_plane.pools.connect import BROKEN, connect
from control_plane.pools.placement import STALE_TTLS, Placements
from control_plane.registry import revocations as table
from control_plane.settings import Settings

logger = logging.getLogger(__name__)

TENANT, HOME, REVOCATION = "control_plane_tenant", "control_plane_home", "control_plane_revocation"

INTERVAL = 10.0  # seconds between two looks, if no notice comes
TIMEOUT = 5.0  # seconds for an answer; a registry that hangs is asked again over a new connection
LATE = 30.0  # seconds after which a revocation that nobody noticed is in force, and after which /readyz says "late"
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds between two connections; doubled until one has lived for a while
LONGEST_TIMEOUT = 60.0  # seconds; doubled likewise, because a registry that is merely slow must not stay unread
RELOAD = 3600.0  # seconds after which everything is read anew, which also drops what has expired
PATIENCE = 3.0  # seconds that a start waits for the first look

_LOST: tuple[type[BaseException], ...] = (ControlPlaneError, *BROKEN)

State = Literal["ok", "late", "unknown"]


class RegistryFeed:
    """Keeps `placements` and `revocations` close to what the registry says, from `start` to `aclose`.

    Without the registry the revocations that are known stay in force, for as long as placements do: `STALE_TTLS` times
    their TTL. After that, and before the first look, no token is accepted.
    """

    def __init__(
        self,
        dsn: str,
        settings: Settings,
        placements: Placements,
        revocations: Revocations,
        *,
        interval: float = INTERVAL,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dsn = dsn
        self._placements = placements
        self._revocations = revocations
        self._interval = interval
        self._timeout = timeout
        self._clock = clock
        self._bound = STALE_TTLS * settings.placement_ttl
        self._looked_at = float("-inf")
        self._loaded_at = float("-inf")
        self._last_id = 0
        self._homes: set[UUID] = set()
        self._notice = asyncio.Event()
        self._looked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def state(self) -> State:
        """`late`: the last look is longer ago than it should be; `unknown`: so long that no token is accepted."""
        age = self._clock() - self._looked_at
        if age >= self._bound:
            return "unknown"
        return "ok" if age <= LATE else "late"

    async def start(self) -> None:
        """Begin; waits for the first look, but not for long: a slow registry holds nobody up."""
        self._revocations.trust(False)
        self._tasks = [
            asyncio.create_task(self._keep_following(), name="registry feed"),
            asyncio.create_task(self._doubt(), name="registry feed's age"),
        ]
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._looked.wait()

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _keep_following(self) -> None:
        failures = 0
        while True:
            began = self._clock()
            try:
                await self._follow(min(self._timeout * 2**failures, LONGEST_TIMEOUT))
            except Exception as error:  # whatever it is: a process that stopped looking would soon serve nobody
                if self._looked_at - began > self._interval:
                    failures = 0
                logger.warning(
                    "lost the registry's notices (%s); connecting again",
                    type(error).__name__,
                    exc_info=None if isinstance(error, _LOST) else error,
                )
            pause = min(FIRST_PAUSE * 2**failures, LONGEST_PAUSE)
            failures = min(failures + 1, 10)
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause)  # noqa: S311 - jitter

    async def _follow(self, timeout: float) -> None:
        """One connection, until it fails; `timeout` in seconds for each answer."""
        connection = await connect(
            self._dsn, application_name="control-plane feed", timeout=timeout, command_timeout=timeout
        )
        try:
            connection.add_termination_listener(self._wake)
            for channel in (TENANT, HOME, REVOCATION):
                await connection.add_listener(channel, self._hear)
            # Only now, so that nothing falls between the look and the first notice.
            self._placements.expire_all()
            await self._look(connection, anew=True)
            while True:
                await self._wait()
                await self._look(connection, anew=self._clock() - self._loaded_at > RELOAD)
        except asyncio.CancelledError:
            with suppress(*BROKEN):
                await connection.close(timeout=1.0)
            raise
        finally:
            self._placements.stop_hearing()
            connection.terminate()

    async def _wait(self) -> None:
        """Until a notice comes, or for the interval."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._interval):
                await self._notice.wait()

    async def _look(self, connection: asyncpg.Connection, *, anew: bool) -> None:
        self._notice.clear()
        homes, self._homes = self._homes, set()
        if homes:
            self._placements.expire_homes(homes)
        asked_at = self._clock()
        rows = await connection.fetch(table.AFTER, 0 if anew else self._last_id)
        made = [
            Revocation(row["tenant_id"], row["subject"], row["token_id"], row["issued_before"] or 0.0) for row in rows
        ]
        if anew:
            self._loaded_at = asked_at
            self._revocations.replace(made)
            self._last_id = 0
        else:
            self._revocations.add(made)
        if rows:
            self._last_id = rows[-1]["id"]
        self._looked_at = asked_at
        self._placements.hear()
        self._revocations.trust(True)
        self._looked.set()

    async def _doubt(self) -> None:
        """Let no token be accepted once the last look is too long ago."""
        while True:
            await self._looked.wait()
            left = self._looked_at + self._bound - self._clock()
            if left > 0:
                await asyncio.sleep(left)
            else:
                logger.warning("no token is accepted: for %.0f s the registry could not be read", self._bound)
                self._revocations.trust(False)
                self._looked.clear()

    def _hear(self, _: Any, __: int, channel: str, payload: object) -> None:
        if channel != REVOCATION:
            try:
                changed = UUID(str(payload))
            except ValueError:
                return  # not one of ours: whoever may connect may send notices
            if channel == TENANT:
                self._placements.expire(changed)
                return
            self._homes.add(changed)
        self._notice.set()

    def _wake(self, _: Any) -> None:
        self._notice.set()
