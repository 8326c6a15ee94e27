"""How many homes of one cluster are migrated at the same time: as many as its tenants do not notice.

Additive increase, multiplicative decrease: one more after each quiet window, half as many after a sign of strain. What
counts as one is decided here, from what the lane has seen and from what the server says of itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

MISSED = {"55P03", "40P01"}  # lock_not_available, deadlock_detected
EXHAUSTED = {"53200", "53300"}  # out_of_memory, of which the lock table is the usual part; too_many_connections

START = 2  # homes at a time, while nothing is known of the server
WINDOW = 2.0  # seconds between two decisions

_LOCKS_MISSED = 0.02  # of the attempts in a window
_SLOWER = 2.0  # times as long as a home took at the start: more at a time brings nothing, they only wait for each other
_BLOCKED = 1  # sessions of others that wait for a lock of ours
_CROWDED = 0.5  # of the busy sessions wait for what all of a server share
_ENOUGH = 5  # homes in a window, before their time tells something


@dataclass(frozen=True, slots=True)
class Sample:
    """What `sql/migrator/strain.sql` finds at a moment: numbers of sessions."""

    busy: int  # at work, ours among them
    crowded: int  # of these, waiting for the lock table or the invalidation queue
    blocked: int  # sessions of others that wait for a lock that a migration holds


@dataclass(slots=True)
class Pace:
    """The limit of one cluster, at most `ceiling`. The lane tells what happens; `decide` closes a window."""

    ceiling: int
    limit: int = field(init=False)
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=200))
    _usual: float | None = None  # seconds of a home in the first window that tells
    _attempts: int = 0
    _missed: int = 0
    _short: bool = False  # the server lacked something in this window

    def __post_init__(self) -> None:
        self.limit = max(1, min(START, self.ceiling))

    def took(self, seconds: float) -> None:
        """A home was migrated in so many seconds."""
        self._attempts += 1
        self._seconds.append(seconds)

    def missed(self) -> None:
        """A home did not get its locks in time."""
        self._attempts += 1
        self._missed += 1

    def exhausted(self) -> None:
        """The server had no room: in its lock table, for a connection. Nobody waits for the end of the window then."""
        if not self._short:
            self._short = True
            self._halve()

    def decide(self, sample: Sample | None) -> str | None:
        """Close the window and set the limit; the sign of strain that was seen, if one was. None: no sample came."""
        sign = self._sign(sample)
        slower = None if sign else self._slower()
        if slower is not None and self.limit <= START:
            # So it is with few at a time, too: sessions and catalogues that grow make each home take longer.
            self._usual, slower = None, None
        elif slower is not None:
            self.limit = max(START, self.limit // 2)
        elif sign is None and self._attempts:  # a window without work, in a pause say, tells nothing
            self.limit = min(self.limit + 1, self.ceiling)
        elif sign is not None and not self._short:
            self._halve()
        self._seconds.clear()
        self._attempts = self._missed = 0
        self._short = False
        return sign or slower

    def _halve(self) -> None:
        self.limit = max(1, self.limit // 2)

    def _sign(self, sample: Sample | None) -> str | None:
        if self._short:
            return "the server had no room for more"
        if self._missed > max(1.0, _LOCKS_MISSED * self._attempts):
            return f"{self._missed} of {self._attempts} attempts did not get their locks"
        if sample is not None and sample.blocked >= _BLOCKED:
            return f"{sample.blocked} sessions waited for a migration"
        if sample is not None and sample.busy > 1 and sample.crowded > _CROWDED * sample.busy:
            return f"{sample.crowded} of {sample.busy} busy sessions waited for what they share"
        return None

    def _slower(self) -> str | None:
        if len(self._seconds) < _ENOUGH:
            return None
        now = median(self._seconds)
        if self._usual is None:
            self._usual = now
        if now > _SLOWER * self._usual:
            return f"a home took {now * 1000:.0f} ms, not {self._usual * 1000:.0f}"
        return None
