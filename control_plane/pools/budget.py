"""Who may hold how many connections of a cluster, and who is next. Bookkeeping only: no I/O, no awaits.

One budget covers all homes of a cluster. A home takes an idle connection of its own, else a free slot of the budget,
else the slot of the connection that has been idle longest anywhere, else it queues. Queues are served in order of
arrival across homes, so a busy home cannot starve the others.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass
from uuid import UUID

import asyncpg


@dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom to connect; `dsn` is the cluster's, with everything of its user replaced."""

    dsn: str
    database: str
    role: str
    password: str
    generation: int


class Lease:
    """One open connection of a home."""

    __slots__ = ("connection", "home", "idle_since", "uses")

    def __init__(self, connection: asyncpg.Connection, home: HomePool) -> None:
        self.connection = connection
        self.home = home
        self.idle_since = 0.0
        self.uses = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to open one connection, after closing `victim`, whose slot it was."""

    victim: Lease | None = None


class Waiter:
    """One request in the queue; its future resolves to a `Lease` of its home, or to a `Slot`."""

    __slots__ = ("future", "home", "number", "starving")

    def __init__(self, home: HomePool, number: int) -> None:
        self.future: asyncio.Future[Lease | Slot] = asyncio.get_running_loop().create_future()
        self.home = home
        self.number = number
        self.starving = False  # in the budget's queue as well


class HomePool:
    """The connections of one home: at most `size`, of which `keep` survive idleness."""

    __slots__ = ("budget", "home_id", "idle", "keep", "lock", "open", "size", "target", "waiters")

    def __init__(self, home_id: UUID, budget: Budget, size: int, keep: int) -> None:
        self.home_id = home_id
        self.budget = budget
        self.size = size
        self.keep = keep
        self.open = 0  # idle, lent, opening and closing
        self.idle: list[Lease] = []  # last in, first out
        self.waiters: deque[Waiter] = deque()
        self.target: Target | None = None  # read when the first connection is opened
        self.lock = asyncio.Lock()  # one reader of `target` at a time


class Budget:
    """The connections of one cluster: never more than `limit`, whatever the number of homes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0
        self.unavailable_until = 0.0  # until then new connections are not even tried
        self._with_idle: OrderedDict[HomePool, None] = OrderedDict()  # least recently used first
        self._starving: deque[Waiter] = deque()
        self._number = 0

    def take_idle(self, home: HomePool) -> Lease | None:
        while home.idle:
            lease = home.idle.pop()
            if not home.idle:
                del self._with_idle[home]
            if not lease.connection.is_closed():
                return lease
            self.free(home)
        return None

    def take_slot(self, home: HomePool) -> Slot | None:
        if home.open >= home.size:
            return None
        if self.open < self.limit:
            self.open += 1
            home.open += 1
            return Slot()
        if not self._with_idle:
            return None
        victim = self._remove_idle(next(iter(self._with_idle)))
        victim.home.open -= 1
        home.open += 1
        return Slot(victim)

    def queue(self, home: HomePool) -> Waiter:
        self._number += 1
        waiter = Waiter(home, self._number)
        home.waiters.append(waiter)
        if home.open < home.size:
            self._starve(waiter)
        return waiter

    def give_back(self, lease: Lease, now: float) -> None:
        """A connection fit for the next request: to the next in line, else idle."""
        home, waiter = lease.home, self._next(lease.home)
        if waiter is None:
            lease.idle_since = now
            home.idle.append(lease)
            self._with_idle[home] = None
            self._with_idle.move_to_end(home)
        elif waiter.home is home:
            waiter.future.set_result(lease)
        else:
            self._lose(home)
            waiter.home.open += 1
            waiter.future.set_result(Slot(victim=lease))

    def free(self, home: HomePool) -> None:
        """A connection of `home` is gone, or was never opened: its slot goes to the next in line."""
        self._lose(home)
        self.open -= 1
        if (waiter := self._next(home)) is not None:
            self.open += 1
            waiter.home.open += 1
            waiter.future.set_result(Slot())

    def expired(self, idle_before: float) -> list[Lease]:
        """Take out the connections idle since before `idle_before`; their slots stay taken until `free`."""
        found = []
        for home in list(self._with_idle):
            while len(home.idle) > home.keep and home.idle[0].idle_since < idle_before:
                found.append(self._remove_idle(home))
        return found

    def drain(self) -> list[Lease]:
        """Take out every idle connection."""
        return [self._remove_idle(home) for home in list(self._with_idle) for _ in range(len(home.idle))]

    def _remove_idle(self, home: HomePool) -> Lease:
        lease = home.idle.pop(0)
        if not home.idle:
            del self._with_idle[home]
        return lease

    def _next(self, home: HomePool) -> Waiter | None:
        """The earliest of the home's own queue and of those who wait for the budget, taken out of line."""
        while home.waiters and home.waiters[0].future.done():
            home.waiters.popleft()
        while self._starving and not self._may_open(self._starving[0]):
            self._starving.popleft().starving = False
        own = home.waiters[0] if home.waiters else None
        starving = self._starving[0] if self._starving else None
        if own is not None and (starving is None or own.number <= starving.number):
            home.waiters.popleft()
            return own
        if starving is not None:
            self._starving.popleft()
            starving.starving = False
        return starving

    @staticmethod
    def _may_open(waiter: Waiter) -> bool:
        return not waiter.future.done() and waiter.home.open < waiter.home.size

    def _lose(self, home: HomePool) -> None:
        # Those who waited for this home's connections may have to open one now.
        home.open -= 1
        for waiter in home.waiters:
            if not waiter.starving and not waiter.future.done():
                self._starve(waiter)

    def _starve(self, waiter: Waiter) -> None:
        waiter.starving = True
        self._starving.append(waiter)
