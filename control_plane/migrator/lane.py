"""One cluster's part of a wave: its homes in a queue, and as many workers as its limit."""

from __future__ import annotations

import asyncio
import heapq
import json
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from time import monotonic

import asyncpg

from control_plane.errors import ClusterUnavailable, ExtensionUnavailable
from control_plane.migrator import pace
from control_plane.migrator.debts import standing
from control_plane.migrator.job import Job
from control_plane.migrator.link import Link
from control_plane.migrator.pace import EXHAUSTED, MISSED, Sample
from control_plane.migrator.places import described
from control_plane.migrator.plan import DueHome
from control_plane.migrator.results import HomeResult, Paced, StepProgress, Touched
from control_plane.migrator.steps import Debt
from control_plane.migrator.verdicts import ATTEMPTS, Verdict, judge, lock_timeout, patience, sqlstate_of
from control_plane.pools.connect import UNREACHABLE
from control_plane.registry.models import Cluster
from control_plane.settings import shipped

_FAILURES: tuple[type[BaseException], ...] = (
    asyncpg.PostgresError,
    ClusterUnavailable,
    ExtensionUnavailable,
    *UNREACHABLE,
)
_LOSSES = 10  # lost connections in a row after which the cluster is given up: some 25 seconds
_TOUCHED = "CP004"  # the message of stamp_migration() that says what was touched
_TOO_LONG = "{}: a statement took longer than the {:g} s of CP_MIGRATE_STATEMENT_TIMEOUT"
_BUILDS = 2  # at a time in a database, as hold_build() has it for all runners together
_STRAIN = (shipped("sql") / "migrator" / "strain.sql").read_text()
_TURN = 0.1  # seconds until a worker that is too many looks again
_HELD = 1.0  # seconds until a home that somebody else is at is looked at again


@dataclass(slots=True)
class _Task:
    home: DueHome
    version: int
    target: int
    owed: tuple[str, ...]  # steps of that version
    attempt: int = 0  # since something was done for good
    attempts: int = 1
    began: float = 0.0
    seconds: float = 0.0  # of work, over all attempts
    touched: Touched | None = None

    def touch(self, more: Touched) -> None:
        self.touched = self.touched.plus(more) if self.touched else more


class Lane:
    """Runs the homes of one cluster; every home is reported unless the run is stopped before its turn."""

    def __init__(self, job: Job, cluster: Cluster, homes: Sequence[DueHome], ceiling: int) -> None:
        self._job = job
        self._cluster = cluster
        self._pace = job.pace(cluster, ceiling)
        self._fresh = deque(_Task(home, home.version, home.target, home.owed) for home in homes)
        self._later: list[tuple[float, int, _Task]] = []  # heap by the time of the next attempt
        self._builds: Counter[str] = Counter()  # by database
        self._blocked: dict[str, deque[_Task]] = {}  # homes that wait for a build in their database to end
        self._freed = asyncio.Event()
        self._ticket = count()
        self._losses = 0

    async def run(self) -> None:
        """Work the queue off with as many homes at a time as the cluster bears, and at most `ceiling`."""
        wanted = min(self._pace.ceiling, len(self._fresh))
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._work(number)) for number in range(wanted)]
            watch = group.create_task(self._watch())
            await asyncio.wait(workers)
            watch.cancel()

    async def _watch(self) -> None:
        """Set the pace anew after each window."""
        while True:
            await asyncio.sleep(pace.WINDOW)
            before, sign = self._pace.limit, self._pace.decide(await self._sample())
            if self._pace.limit != before:
                self._job.progress(Paced(self._cluster.name, self._pace.limit, sign))

    async def _sample(self) -> Sample | None:
        try:
            async with self._job.databases.admin(self._cluster, purpose="migrate pace") as connection:
                row = await connection.fetchrow(_STRAIN)
        except _FAILURES:
            return None
        return Sample(row["busy"], row["crowded"], row["blocked"]) if row is not None else None

    async def _work(self, number: int) -> None:
        async with self._job.links.borrow(self._cluster) as link:
            while await self._has_turn(link, number) and (task := await self._take()) is not None:
                task.target = self._job.target_of(task.home)
                if task.version >= task.target and not task.owed:
                    self._report(task, "skipped", text=f"its tenant was pinned to version {task.target} meanwhile")
                    continue
                task.began = monotonic()
                try:
                    through = await self._migrate(link, task)
                except _FAILURES as error:
                    task.seconds += monotonic() - task.began
                    await self._recover(link, task, error)
                else:
                    task.seconds += monotonic() - task.began
                    self._losses = 0
                    if through:
                        self._report(task, "done")

    async def _has_turn(self, link: Link, number: int) -> bool:
        """Wait, without a connection, while fewer workers are wanted; False when nothing is left to wait for."""
        while number >= self._pace.limit and not self._job.reins.stopped:
            await link.close()
            if not (self._fresh or self._later or self._blocked):
                return False
            await self._job.reins.sleep(_TURN)
        return True

    async def _take(self) -> _Task | None:
        """The next home; None when there is none. A home that another worker holds comes back through that worker."""
        while await self._job.reins.ready():
            wait = self._later[0][0] - monotonic() if self._later else None
            if wait is not None and wait <= 0:
                return heapq.heappop(self._later)[2]
            if (task := self._unblocked()) is not None:
                return task
            if self._fresh:
                return self._fresh.popleft()
            if wait is None and not self._blocked:
                return None
            self._freed.clear()
            await self._job.reins.sleep(wait, self._freed)
        return None

    async def _migrate(self, link: Link, task: _Task) -> bool:
        """To the target, version by version; False when the home is put back: it waits for a build, or the run does."""
        database = task.home.place.database
        while task.owed or task.version < task.target:
            if not task.owed:
                await self._transact(link, task)
                continue
            if task.owed[0] == "concurrent":
                if self._builds[database] >= _BUILDS:
                    self._blocked.setdefault(database, deque()).append(task)
                    return False
                self._builds[database] += 1
                try:
                    through = await self._pay(link, task)
                finally:
                    self._builds[database] -= 1
                    self._freed.set()
            else:
                through = await self._pay(link, task)
            if not through:
                self._postpone(task, 0.0)
                return False
        return True

    def _unblocked(self) -> _Task | None:
        """A home that waited for a build to end, when one has."""
        for database, tasks in self._blocked.items():
            if self._builds[database] < _BUILDS:
                task = tasks.popleft()
                if not tasks:
                    del self._blocked[database]
                return task
        return None

    async def _pay(self, link: Link, task: _Task) -> bool:
        """The first of the steps that the home owes; False when the run was stopped or paused in the middle of it."""
        home, step = task.home, task.owed[0]

        def report(statement: int, statements: int, rows: int) -> None:
            self._job.progress(
                StepProgress(
                    cluster=self._cluster.name,
                    slug=home.slug,
                    label=home.label,
                    home_id=home.home_id,
                    version=task.version,
                    step=step,
                    statement=statement,
                    statements=statements,
                    rows=rows,
                )
            )

        def advance(touched: Touched) -> None:
            task.attempt = 0
            task.touch(touched)

        debt = Debt(home, task.version, step, self._lock_timeout(task), report, advance)
        if not await self._job.steps.pay(link, debt):
            return False
        task.owed = task.owed[1:]
        return True

    async def _transact(self, link: Link, task: _Task) -> None:
        """The message of the next stage."""
        home, job = task.home, self._job
        script = job.script(task.version, task.target)
        connection = await link.to(home.place.database)
        message = script.message(home.home_id, home.schema_name, self._lock_timeout(task), job.statement_timeout)

        heard: list[Touched] = []

        def listen(_: object, said: asyncpg.PostgresLogMessage) -> None:
            if said.sqlstate == _TOUCHED:
                objects = json.loads(said.message)
                heard.append(Touched(rows=objects.pop("rows"), objects=objects))

        connection.add_log_listener(listen)
        began = monotonic()
        try:
            await connection.execute(message)
        finally:
            connection.remove_log_listener(listen)
        self._pace.took(monotonic() - began)
        for touched in heard:
            task.touch(touched)
        task.version, task.owed, task.attempt = script.to_version, script.beside, 0

    def _lock_timeout(self, task: _Task) -> float:
        return lock_timeout(task.attempt, self._job.lock_timeout)

    async def _recover(self, link: Link, task: _Task, error: BaseException) -> None:
        verdict = judge(error)
        if sqlstate_of(error) in MISSED:
            self._pace.missed()
        elif sqlstate_of(error) in EXHAUSTED:
            self._pace.exhausted()
        if verdict is Verdict.LOST:
            await link.close()
            self._losses += 1
            if self._losses >= _LOSSES:
                self._give_up(task, error)
                return
            await self._job.reins.sleep(min(0.2 * 2**self._losses, 5.0))
        else:
            self._losses = 0
        if verdict is Verdict.WAIT or (verdict is Verdict.HELD and await self._owes(link, task)):
            # Whoever is at it may need long, and is no failure of the home's.
            self._postpone(task, random.uniform(0.5, 1.5) * _HELD)  # noqa: S311
        elif verdict is Verdict.UNWANTED:
            self._report(task, "skipped", text=verdict.value)
        elif task.attempt + 1 >= ATTEMPTS or verdict is Verdict.FAIL:
            self._report(task, "failed", error, await self._explain(link, task, error))
        elif verdict is Verdict.REPLAN:
            await self._replan(link, task)
        else:
            self._requeue(task, patience(task.attempt))

    async def _explain(self, link: Link, task: _Task, error: BaseException) -> str:
        if isinstance(error, asyncpg.PostgresError) and task.owed:
            return described(error)
        if (
            isinstance(error, asyncpg.QueryCanceledError)
            and monotonic() - task.began >= self._job.statement_timeout > 0
        ):
            return _TOO_LONG.format(error, self._job.statement_timeout)
        if not isinstance(error, asyncpg.PostgresError) or judge(error) is not Verdict.FAIL:
            return _text(error)
        try:
            connection = await link.to(task.home.place.database)
            return await self._job.explainer.explain(
                connection,
                self._job.script(task.version, task.target),
                task.home,
                self._lock_timeout(task),
                self._job.statement_timeout,
                error,
            )
        except _FAILURES:
            await link.close()
            return _text(error)

    async def _replan(self, link: Link, task: _Task) -> None:
        """Another runner or a lost answer moved the home: see where it is now."""
        try:
            connection = await link.to(task.home.place.database)
            found = await standing(connection, task.home.home_id)
        except _FAILURES as error:
            await self._recover(link, task, error)
            return
        if found is None:
            self._report(task, "skipped", text="the home is gone")
            return
        task.version, task.owed = found
        if task.version > task.target:
            self._report(task, "skipped", text=f"the home is at version {task.version} by now")
        elif task.version == task.target and not task.owed:
            self._report(task, "done")
        else:
            self._requeue(task, 0.0)

    async def _owes(self, link: Link, task: _Task) -> bool:
        """Whether the home owes steps, which whoever holds it is working off."""
        try:
            found = await standing(await link.to(task.home.place.database), task.home.home_id)
        except _FAILURES:
            await link.close()
            return False
        return found is not None and bool(found.owed)

    def _requeue(self, task: _Task, wait: float) -> None:
        task.attempt += 1
        task.attempts += 1
        self._postpone(task, wait)

    def _postpone(self, task: _Task, wait: float) -> None:
        heapq.heappush(self._later, (monotonic() + wait, next(self._ticket), task))

    def _give_up(self, task: _Task, error: BaseException) -> None:
        """The cluster is gone: its other homes would only wait for the same answer."""
        blocked = (each for tasks in self._blocked.values() for each in tasks)
        waiting = [task, *self._fresh, *(later for _, _, later in self._later), *blocked]
        self._fresh.clear()
        self._later.clear()
        self._blocked.clear()
        for each in waiting:
            self._report(each, "failed", error, _text(error))

    def _report(self, task: _Task, status: str, error: BaseException | None = None, text: str | None = None) -> None:
        home = task.home
        self._job.report(
            HomeResult(
                cluster=self._cluster.name,
                slug=home.slug,
                label=home.label,
                home_id=home.home_id,
                isolation=home.isolation,
                from_version=home.version,
                to_version=task.target,
                reached=task.version,
                status=status,  # type: ignore[arg-type]
                milliseconds=round(task.seconds * 1000),
                attempts=task.attempts,
                sqlstate=sqlstate_of(error) if error else None,
                error=text,
                touched=task.touched if status == "done" else None,
            )
        )


def _text(error: BaseException) -> str:
    if isinstance(error, ClusterUnavailable):
        return f"{error.message} ({error.details})" if error.details else error.message
    if isinstance(error, ExtensionUnavailable):
        return f"{error.message} Hint: {error.hint}"
    return str(error) or type(error).__name__
