"""The bookkeeping of connections: shares, turns and bounds, without a connection."""

from __future__ import annotations

import random
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import pytest

from control_plane.pools import budget as budget_module
from control_plane.pools.budget import TENANTS_WORTH, Budget, HomePool, Lease, Line, Slot, Waiter
from tests.support.mutation import mutated

A, B, C = uuid4(), uuid4(), uuid4()
RED = (AssertionError, pytest.fail.Exception)


class Connection:
    """Budgets ask no more of a connection than this."""

    closed = False

    def is_closed(self) -> bool:
        return self.closed


def lease_of(slot: Slot) -> Lease:
    """What is opened with the right to open."""
    return Lease(cast(asyncpg.Connection, Connection()), slot.line)


def shared_home(size: int = 8, limit: int = 40, tenant_queue: int = 256) -> HomePool:
    return HomePool(uuid4(), Budget(limit, tenant_queue), size, shared=True)


def dedicated_home(budget: Budget, size: int = 2) -> HomePool:
    return HomePool(uuid4(), budget, size, shared=False)


def take(home: HomePool, tenant: UUID) -> Lease | None:
    """A connection for a request that does not want to wait."""
    if (lease := home.budget.take_idle(home, tenant)) is not None:
        return lease
    slot = home.budget.take_slot(home, tenant)
    return None if slot is None else lease_of(slot)


def flood(home: HomePool, tenant: UUID, requests: int = 200) -> tuple[list[Lease], list[Waiter]]:
    """As many requests of one tenant at once: those that got a connection, and those that wait."""
    held = []
    while (lease := take(home, tenant)) is not None:
        held.append(lease)
    waiters = [home.budget.queue(home, tenant) for _ in range(requests - len(held))]
    return held, [waiter for waiter in waiters if waiter is not None]


def served(waiter: Waiter) -> Lease | None:
    if not waiter.future.done():
        return None
    granted = waiter.future.result()
    return lease_of(granted) if isinstance(granted, Slot) else granted


async def test_a_tenant_that_floods_leaves_connections_to_the_others() -> None:
    """Attack 37: with all of its requests hanging, the others are served without a single release."""
    home = shared_home(size=8)
    held, waiting = flood(home, A)
    assert len(held) == 5
    assert len(waiting) == 195
    of_b = [take(home, B), take(home, B)]
    assert None not in of_b
    assert take(home, B) is None  # nor may two take everything
    assert take(home, C) is not None


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 40])
async def test_one_tenant_has_most_of_a_quiet_home_and_not_all(size: int) -> None:
    held, _ = flood(shared_home(size=size), A)
    assert len(held) == {1: 1, 2: 1, 3: 2, 4: 2, 8: 5, 40: 26}[size]


async def test_a_dedicated_home_has_no_one_to_share_with() -> None:
    held, _ = flood(dedicated_home(Budget(40, 256), size=4), A)
    assert len(held) == 4


async def test_tenants_take_turns_however_long_their_lines_are() -> None:
    """Attack 37: whoever comes waits for one turn of each that waits already, and not for their requests."""
    home = shared_home(size=3)
    held = flood(home, A)[0] + flood(home, B)[0]
    assert len(held) == 3
    late = home.budget.queue(home, C)
    assert late is not None
    releases = 0
    while not late.future.done():
        releases += 1
        home.budget.give_back(held.pop(0), 0.0)
    assert releases <= 3


async def test_turns_count_across_homes() -> None:
    """A home whose tenants never rest does not keep the budget from a home that has nothing."""
    budget = Budget(2, 256)
    busy, other = dedicated_home(budget), dedicated_home(budget)
    held, waiting = flood(busy, A)
    assert len(held) == 2
    late = budget.queue(other, B)
    assert late is not None
    budget.give_back(held[0], 0.0)
    assert waiting[0].future.done()
    budget.give_back(held[1], 0.0)
    assert late.future.done()
    granted = late.future.result()
    assert isinstance(granted, Slot)
    assert granted.victim is held[1]


async def test_lines_have_an_end() -> None:
    """Attack 37: a queue that nobody will live to see the end of is not joined."""
    home = shared_home(size=1, tenant_queue=3)
    assert take(home, A) is not None
    for tenant in [A, *(uuid4() for _ in range(TENANTS_WORTH - 1))]:
        for _ in range(3):
            assert home.budget.queue(home, tenant) is not None
        assert home.budget.queue(home, tenant) is None
    assert home.budget.waiting == 3 * TENANTS_WORTH
    assert home.budget.queue(home, B) is None


async def test_who_gives_up_leaves_no_trace() -> None:
    home = shared_home(size=1)
    lease = take(home, A)
    assert lease is not None
    first, second = home.budget.queue(home, B), home.budget.queue(home, B)
    assert first is not None
    assert second is not None
    first.future.cancel()  # its task has not run yet
    home.budget.give_back(lease, 0.0)
    assert served(second) is lease
    home.budget.leave(first)
    home.budget.leave(second)
    home.budget.give_back(lease, 0.0)
    assert (home.queue, home.lent, home.budget.waiting, home.idle) == ({}, 0, 0, [lease])


async def test_tenants_that_went_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_module, "MAX_LINES", 10)
    home = shared_home()
    held = take(home, A)
    waiting = home.line(B)
    waiter = home.budget.queue(home, B)
    for _ in range(100):
        if (lease := take(home, uuid4())) is not None:
            home.budget.give_back(lease, 0.0)
    assert held is not None
    assert held.line is home.lines[A]
    assert waiter is None or home.lines[B] is waiting
    assert len(home.lines) <= 10


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_is_lost_and_nobody_waits_for_what_is_free(seed: int) -> None:
    World(random.Random(seed)).run(800)


async def test_connections_that_are_not_counted_are_noticed() -> None:
    """`a connection that is gone keeps its place`."""
    with mutated(Line.release, "self.home.lent -= 1", "pass"), pytest.raises(RED):
        World(random.Random(1)).run(800)


async def test_a_tenant_without_a_share_is_noticed() -> None:
    """Attack 37: `a tenant may hold what it can get`."""
    with mutated(HomePool.allows, "not self.shared", "True"), pytest.raises(RED):
        await test_a_tenant_that_floods_leaves_connections_to_the_others()


async def test_a_queue_without_turns_is_noticed() -> None:
    """Attack 37: `requests are served in order of arrival`."""
    with mutated(Budget._grant, "self._renew_turn(line)", "pass"), pytest.raises(RED):
        await test_turns_count_across_homes()


async def test_a_queue_without_an_end_is_noticed() -> None:
    """Attack 37: `a tenant may queue as much as it likes`."""
    with mutated(Budget.queue, "len(line.waiters) >= self._tenant_queue or", ""), pytest.raises(RED):
        await test_lines_have_an_end()


class World:
    """Requests of many tenants of many homes, at random, and what must hold after each step."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.budget = Budget(dice.randint(2, 8), 6)
        self.homes = [HomePool(uuid4(), self.budget, dice.randint(1, 5), shared=True) for _ in range(2)]
        self.homes += [dedicated_home(self.budget, dice.randint(1, 2)) for _ in range(5)]
        self.tenants = {home: [uuid4() for _ in range(4 if home.shared else 1)] for home in self.homes}
        self.held: list[Lease] = []
        self.waiters: list[Waiter] = []

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.dice.choice((self.arrive, self.arrive, self.leave, self.give_back, self.lose, self.break_idle))()
            self.collect()
            self.check()
        for step in (self.give_back, self.lose):
            while self.held or self.waiters:
                step()
                self.collect()
                self.check()
        assert [line for line in self.lines() if line.held or line.waiters] == []

    def arrive(self) -> None:
        home = self.dice.choice(self.homes)
        tenant = self.dice.choice(self.tenants[home])
        if (lease := take(home, tenant)) is not None:
            self.held.append(lease)
        elif (waiter := self.budget.queue(home, tenant)) is not None:
            self.waiters.append(waiter)

    def leave(self) -> None:
        if self.waiters:
            waiter = self.waiters.pop(self.dice.randrange(len(self.waiters)))
            waiter.future.cancel()
            if self.dice.random() < 0.5:
                self.give_back()  # before the task that waited gets to run
            self.budget.leave(waiter)

    def give_back(self) -> None:
        if self.held:
            self.budget.give_back(self.held.pop(self.dice.randrange(len(self.held))), 0.0)

    def lose(self) -> None:
        if self.held:
            lease = self.held.pop(self.dice.randrange(len(self.held)))
            self.budget.free(lease.home, lease.line)

    def break_idle(self) -> None:
        idle = [lease for home in self.homes for lease in home.idle]
        if idle:
            cast(Any, self.dice.choice(idle).connection).closed = True

    def collect(self) -> None:
        for waiter in [waiter for waiter in self.waiters if waiter.future.done()]:
            self.waiters.remove(waiter)
            lease = served(waiter)
            assert lease is not None
            self.held.append(lease)

    def check(self) -> None:
        budget = self.budget
        assert budget.open == sum(home.open for home in self.homes) <= budget.limit
        assert budget.waiting == len(self.waiters) == sum(len(line.waiters) for line in self.lines())
        for home in self.homes:
            assert home.lent == sum(line.held for line in home.lines.values())
            assert home.lent + len(home.idle) == home.open <= home.size
            assert list(home.queue) == sorted((line for line in self.lines() if line.home is home and line.waiters),
                                              key=lambda line: line.turn)  # fmt: skip
            turn = home.next_line()
            if turn is not None:
                assert not home.idle
                anywhere = budget.open < budget.limit or any(each.idle for each in self.homes)
                assert not (home.open < home.size and anywhere)

    def lines(self) -> list[Line]:
        return [line for home in self.homes for line in home.lines.values()]
