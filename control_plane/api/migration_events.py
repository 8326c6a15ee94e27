"""What a run's events are: how far it has got, which wave begins, which homes failed, and its end.

They come from the registry, so that any process can tell of any run. The id of each says what has been told: the number
of the last failed home and the wave, or `end`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from control_plane.api.events import ALIVE, event
from control_plane.errors import ClusterUnavailable, ControlPlaneError, InvalidInput
from control_plane.migrator import operators
from control_plane.operations.upkeep import pause
from control_plane.pools.databases import Databases
from control_plane.registry import run_progress, runs
from control_plane.registry.models import RunHome
from control_plane.registry.run_progress import Progress

logger = logging.getLogger(__name__)

SECONDS = 1.0  # between two looks
QUIET = 15.0  # seconds without an event after which a comment is sent
_END = "end"


@dataclass(slots=True)
class Teller:
    """Turns what a look finds into the events that were not told yet."""

    run_id: UUID
    number: int = 0  # of the last failed home that was told
    mark: str = ""  # the wave that was told, or that the end was
    _state: dict[str, Any] | None = None

    @classmethod
    def after(cls, run_id: UUID, last_event_id: str | None) -> Teller:
        """Raises `InvalidInput` for an id that is none of ours."""
        if last_event_id is None:
            return cls(run_id)
        number, dot, mark = last_event_id.partition(".")
        if not (dot and number.isascii() and number.isdigit() and len(number) <= 18):
            raise InvalidInput("The header Last-Event-ID is none of this stream's.")
        return cls(run_id, int(number), mark)

    def has_told_all(self, seen: Progress) -> bool:
        """Whether the end has been told, and the run has not been opened again."""
        return self.mark == _END and _is_over(seen)

    def tell(self, seen: Progress) -> Iterator[bytes]:
        for home in seen.failures:
            if home.number > self.number:
                self.number = home.number
                yield self._event("home-failed", _home(home))
        if seen.run.wave is not None and seen.run.wave != self.mark and not _is_over(seen):
            self.mark = seen.run.wave
            yield self._event("wave", {"wave": seen.run.wave})
        state = _state(seen)
        if state != self._state:
            self._state = state
            yield self._event("progress", state)
        if _is_over(seen):
            self.mark = _END
            yield self._event("end", state | {"reason": seen.run.reason})

    def _event(self, name: str, data: dict[str, Any]) -> bytes:
        return event(name, {"run": str(self.run_id), **data}, f"{self.number}.{self.mark}")


async def follow(
    databases: Databases,
    teller: Teller,
    seen: Progress,
    ending: asyncio.Event,
    still_allowed: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    """The events from `seen`, the first look, to the end of the run, of the caller's right or of this process.

    A registry that is away only makes it quiet.
    """
    clock = asyncio.get_running_loop().time
    spoke = clock()
    while True:
        for told in teller.tell(seen):
            spoke = clock()
            yield told
        if teller.mark == _END:
            return
        if clock() - spoke >= QUIET:
            spoke = clock()
            yield ALIVE
        await pause(ending, SECONDS)
        if ending.is_set() or not await still_allowed():
            return
        try:
            seen = await operators.progress(databases, teller.run_id, teller.number)
        except (ClusterUnavailable, DBAPIError, OSError):
            continue
        except ControlPlaneError:  # the run is gone
            return


def _is_over(seen: Progress) -> bool:
    """All is told when no failed home may be left out of the answer."""
    return seen.run.status not in runs.OPEN and len(seen.failures) < run_progress.MOST


def _state(seen: Progress) -> dict[str, Any]:
    return {
        "status": seen.run.status,
        "wave": seen.run.wave,
        "planned": seen.run.planned,
        "done": seen.run.done,
        "failed": seen.run.failed,
    }


def _home(home: RunHome) -> dict[str, Any]:
    return {
        "cluster": home.cluster,
        "tenant": home.tenant,
        "home": str(home.home_id),
        "from": home.from_version,
        "to": home.to_version,
        "sqlstate": home.sqlstate,
        "error": home.error,
    }
