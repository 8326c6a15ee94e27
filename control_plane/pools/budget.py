"""Who may hold how many connections of a cluster, and who is next. Bookkeeping only: no I/O, no awaits.

One budget covers all homes of a cluster. A home takes an idle connection of its own, else a free slot of the budget,
else the slot of the connection that has been idle longest anywhere, else it queues.

Nobody starves, since tenants wait in turns: who is served goes to the back of the line with whatever else it wants. And
nobody takes everything: in a shared home the share of one tenant shrinks as the connections that are left do, so that
one is always kept for a tenant that holds none, however slow the requests of the others are.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from control_plane.pools.breaker import Breaker

MAX_LINES = 1024  # of a home, before those of tenants that neither hold nor wait are forgotten
TENANTS_WORTH = 16  # the queue of a cluster holds as many requests as those of this many tenants


@dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom to connect; `dsn` is the pooler's or the cluster's, with everything of its user replaced."""

    dsn: str
    pooled: bool
    database: str
    role: str
    password: str
    generation: int


class Line:
    """One tenant at one home: the connections that it holds, and its requests that wait for one."""

    __slots__ = ("held", "home", "tenant_id", "turn", "waiters")

    def __init__(self, home: HomePool, tenant_id: UUID) -> None:
        self.home = home
        self.tenant_id = tenant_id
        self.held = 0  # lent, opening, and closing after a loan
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()  # in order of arrival
        self.turn = 0  # the lower, the sooner

    def hold(self) -> None:
        self.held += 1
        self.home.lent += 1

    def release(self) -> None:
        self.held -= 1
        self.home.lent -= 1


class Lease:
    """One open connection of a home; `line` is the tenant's that holds it."""

    __slots__ = ("connection", "home", "idle_since", "line", "uses")

    def __init__(self, connection: asyncpg.Connection, line: Line) -> None:
        self.connection = connection
        self.home = line.home
        self.line: Line | None = line
        self.idle_since = 0.0
        self.uses = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """The right of `line` to open one connection, after closing `victim`, whose slot it was."""

    line: Line
    victim: Lease | None = None


class Waiter:
    """One request in the queue; its future resolves to a `Lease` of its home, or to a `Slot`."""

    __slots__ = ("future", "line")

    def __init__(self, line: Line) -> None:
        self.future: asyncio.Future[Lease | Slot] = asyncio.get_running_loop().create_future()
        self.line = line


class HomePool:
    """The connections of one home: at most `size`, of which `keep` survive idleness."""

    __slots__ = (
        "breaker", "budget", "home_id", "idle", "keep", "lent", "lines", "lock", "open", "queue", "shared", "size",
        "target",
    )  # fmt: skip

    def __init__(self, home_id: UUID, budget: Budget, size: int, *, shared: bool) -> None:
        self.home_id = home_id
        self.budget = budget
        self.size = size
        self.shared = shared
        self.keep = 1 if shared else 0
        self.open = 0  # idle, lent, opening and closing
        self.lent = 0  # held by tenants
        self.idle: list[Lease] = []  # last in, first out
        self.lines: dict[UUID, Line] = {}  # of tenants that hold, wait or did lately
        self.queue: OrderedDict[Line, None] = OrderedDict()  # those with waiters, by turn
        self.breaker = Breaker()  # behind a pooler
        self.target: tuple[Target, float] | None = None  # and when it was read
        self.lock = asyncio.Lock()  # one reader of `target` at a time

    def line(self, tenant_id: UUID) -> Line:
        line = self.lines.get(tenant_id)
        if line is None:
            if len(self.lines) >= MAX_LINES:
                self.lines = {line.tenant_id: line for line in self.lines.values() if line.held or line.waiters}
            line = self.lines[tenant_id] = Line(self, tenant_id)
        return line

    def allows(self, line: Line) -> bool:
        """Whether the tenant may hold one more, if there is one: less than twice what is left, less the last."""
        return not self.shared or line.held == 0 or line.held < 2 * (self.size - self.lent - 1)

    def next_line(self) -> Line | None:
        """Whose turn it is. Passes over those that have their share, and these are no more than `size`."""
        for line in self.queue:
            if self.allows(line):
                return line
        return None


class Budget:
    """The connections of one cluster: never more than `limit`, whatever the number of homes."""

    def __init__(self, limit: int, tenant_queue: int) -> None:
        self.limit = limit
        self.open = 0
        self.waiting = 0
        self.breaker = Breaker()
        self._tenant_queue = tenant_queue
        self._with_idle: OrderedDict[HomePool, None] = OrderedDict()  # least recently used first
        self._starving: OrderedDict[HomePool, None] = OrderedDict()  # have waiters, and may open more
        self._turns = 0

    def take_idle(self, home: HomePool, tenant_id: UUID) -> Lease | None:
        while home.idle:
            if home.idle[-1].connection.is_closed():
                self._remove_idle(home, -1)
                self.free(home)
                continue
            line = home.line(tenant_id)
            if not home.allows(line):
                return None
            lease = self._remove_idle(home, -1)
            lease.line = line
            line.hold()
            return lease
        return None

    def take_slot(self, home: HomePool, tenant_id: UUID) -> Slot | None:
        if home.open >= home.size:
            return None
        line = home.line(tenant_id)
        if home.allows(line):
            if self.open < self.limit:
                self.open += 1
                home.open += 1
                line.hold()
                return Slot(line)
            if self._with_idle:
                victim = self._remove_idle(next(iter(self._with_idle)))
                victim.home.open -= 1
                home.open += 1
                line.hold()
                return Slot(line, victim)
        return None

    def queue(self, home: HomePool, tenant_id: UUID) -> Waiter | None:
        """A place in the line of the tenant; None when that is full, or that of the whole cluster."""
        line = home.line(tenant_id)
        if len(line.waiters) >= self._tenant_queue or self.waiting >= self._tenant_queue * TENANTS_WORTH:
            return None
        waiter = Waiter(line)
        if not line.waiters:
            self._renew_turn(line)
        line.waiters[waiter] = None
        self.waiting += 1
        self._starve(home)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Out of the line without having been served; nothing happens to one that has been."""
        if waiter in waiter.line.waiters:
            self._remove(waiter)

    def give_back(self, lease: Lease, now: float) -> None:
        """A connection fit for the next request: to the next in line, else idle."""
        home = lease.home
        if lease.line is not None:
            lease.line.release()
            lease.line = None
        line = self._next(home) if self.waiting else None
        if line is None:
            lease.idle_since = now
            home.idle.append(lease)
            self._with_idle[home] = None
            self._with_idle.move_to_end(home)
        elif line.home is home:
            lease.line = line
            self._grant(line, lease)
        else:
            home.open -= 1
            line.home.open += 1
            self._grant(line, Slot(line, victim=lease))
            self._starve(home)  # those who waited for this home's connections may have to open one now

    def free(self, home: HomePool, line: Line | None = None) -> None:
        """A connection of `home` is gone, or was never opened: its slot goes to the next in line."""
        if line is not None:
            line.release()
        home.open -= 1
        self.open -= 1
        self._starve(home)
        if (served := self._next_starving()) is not None:
            self.open += 1
            served.home.open += 1
            self._grant(served, Slot(served))

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

    def _remove_idle(self, home: HomePool, position: int = 0) -> Lease:
        lease = home.idle.pop(position)
        if not home.idle:
            del self._with_idle[home]
        return lease

    def _next(self, home: HomePool) -> Line | None:
        """Whose turn it is among those who wait for this home's connections and those who wait for the budget."""
        own = self._next_line(home)
        other = self._next_starving()
        return other if own is None or (other is not None and other.turn < own.turn) else own

    def _next_starving(self) -> Line | None:
        """The line whose turn it is at the home that has starved longest."""
        while self._starving:
            home = next(iter(self._starving))
            if home.open < home.size and (line := self._next_line(home)) is not None:
                return line
            del self._starving[home]
        return None

    def _next_line(self, home: HomePool) -> Line | None:
        """The line whose turn it is, without those at its head who have given up and not yet left."""
        while (line := home.next_line()) is not None:
            waiter = next(iter(line.waiters))
            if not waiter.future.done():
                return line
            self._remove(waiter)
        return None

    def _grant(self, line: Line, granted: Lease | Slot) -> None:
        waiter = next(iter(line.waiters))
        line.hold()
        self._remove(waiter)
        if line.waiters:
            self._renew_turn(line)
        self._starving.pop(line.home, None)
        self._starve(line.home)  # behind the other homes
        waiter.future.set_result(granted)

    def _remove(self, waiter: Waiter) -> None:
        line = waiter.line
        del line.waiters[waiter]
        self.waiting -= 1
        if not line.waiters:
            del line.home.queue[line]

    def _renew_turn(self, line: Line) -> None:
        self._turns += 1
        line.turn = self._turns
        line.home.queue[line] = None
        line.home.queue.move_to_end(line)

    def _starve(self, home: HomePool) -> None:
        if home.queue and home.open < home.size:
            self._starving[home] = None
