"""Whether a run may take the next home, or the next batch of one, and how far."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class Reins:
    """Transactions in flight are never held back: a run that stops or pauses begins no further ones.

    Whoever started the run may set `stop`, too; then there is no `reason`.
    """

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str | None = None  # why it was stopped
    aborted: bool = False
    pins: Mapping[UUID, int] = field(default_factory=dict)  # homes that go no further than a version
    _open: asyncio.Event = field(default_factory=_set)

    @property
    def stopped(self) -> bool:
        return self.stop.is_set()

    @property
    def held_back(self) -> bool:
        """Whether nothing may be begun now."""
        return self.stopped or not self._open.is_set()

    def halt(self, reason: str) -> None:
        if not self.stopped:
            self.reason = reason
            self.stop.set()

    def abort(self, reason: str) -> None:
        self.aborted = True
        self.halt(reason)

    def pause(self) -> None:
        self._open.clear()

    def go_on(self) -> None:
        self._open.set()

    async def ready(self) -> bool:
        """True when the next home may be taken, after a pause if there is one; False once the run is stopped."""
        if not self._open.is_set():
            await self.sleep(None, self._open)
        return not self.stopped

    async def sleep(self, seconds: float | None, *until: asyncio.Event) -> None:
        """Until the run is stopped or one of `until` is set, at most `seconds`."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.stop, *until)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
