"""Logins to a cluster that cannot be reached, and to one that comes back."""

from __future__ import annotations

import asyncio

import pytest

from control_plane.errors import ClusterUnavailable
from control_plane.pools.breaker import BACKOFF, LOGINS, Breaker
from tests.support.mutation import mutated


class Cluster:
    """Logins end when they are told how."""

    def __init__(self) -> None:
        self.now = 0.0
        self.breaker = Breaker(lambda: self.now)
        self.logins: list[asyncio.Future[None]] = []

    async def login(self) -> None:
        async with self.breaker.login():
            login = asyncio.get_running_loop().create_future()
            self.logins.append(login)
            await login

    async def storm(self, number: int) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self.login()) for _ in range(number)]
        await self.breathe()
        return tasks

    async def breathe(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def fail(self) -> None:
        for login in self.logins:
            login.set_exception(ClusterUnavailable())
        self.logins.clear()
        await self.breathe()


async def outcomes(tasks: list[asyncio.Task[None]]) -> list[type | None]:
    return [type(each) if each else None for each in await asyncio.gather(*tasks, return_exceptions=True)]


async def test_few_log_in_at_a_time() -> None:
    cluster = Cluster()
    tasks = await cluster.storm(3 * LOGINS)
    for _ in range(3):
        assert len(cluster.logins) == LOGINS
        for login in cluster.logins:
            login.set_result(None)
        cluster.logins.clear()
        await cluster.breathe()
    assert await outcomes(tasks) == [None] * 3 * LOGINS


async def test_a_failure_spares_the_others_the_wait() -> None:
    cluster = Cluster()
    tasks = await cluster.storm(3 * LOGINS)
    await cluster.fail()
    assert cluster.logins == []  # nobody of those who waited has tried
    assert await outcomes(tasks) == [ClusterUnavailable] * 3 * LOGINS
    with pytest.raises(ClusterUnavailable):
        await cluster.login()


async def test_one_tries_whether_the_cluster_is_back() -> None:
    cluster = Cluster()
    tasks = await cluster.storm(1)
    await cluster.fail()
    cluster.now += BACKOFF
    tasks += await cluster.storm(20)
    (trial,) = cluster.logins
    assert sum(task.done() for task in tasks) == 20
    trial.set_result(None)
    cluster.logins.clear()
    await cluster.breathe()
    await cluster.storm(2)
    assert len(cluster.logins) == 2
    await cluster.fail()
    assert (await outcomes(tasks)).count(None) == 1


@pytest.mark.parametrize("refused", [True, False])
async def test_a_trial_that_ends_otherwise_makes_room_for_the_next(refused: bool) -> None:
    cluster = Cluster()
    await cluster.storm(1)
    await cluster.fail()
    cluster.now += BACKOFF
    (trial,) = await cluster.storm(1)
    if refused:
        cluster.logins[0].set_exception(ValueError())  # an answer
    else:
        trial.cancel()
    cluster.logins.clear()
    await outcomes([trial])
    await cluster.storm(3)
    assert len(cluster.logins) == (3 if refused else 1)
    await cluster.fail()


async def test_a_breaker_that_lets_everybody_try_is_noticed() -> None:
    with mutated(Breaker._admit, "self._trying or", ""), pytest.raises((AssertionError, ValueError)):
        await test_one_tries_whether_the_cluster_is_back()
