"""One cluster's part of a wave: its homes in a queue, and as many workers as its limit."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from time import monotonic

import asyncpg

from control_plane.errors import ClusterUnavailable, ExtensionUnavailable
from control_plane.isolation.extensions import install_extensions
from control_plane.migrator.explain import Explainer
from control_plane.migrator.link import Link
from control_plane.migrator.plan import DueHome
from control_plane.migrator.reins import Reins
from control_plane.migrator.results import HomeResult, Touched
from control_plane.migrator.verdicts import ATTEMPTS, Verdict, judge, lock_timeout, pause, sqlstate_of
from control_plane.pools.connect import UNREACHABLE
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.templates import Script, Template

_FAILURES: tuple[type[BaseException], ...] = (
    asyncpg.PostgresError,
    ClusterUnavailable,
    ExtensionUnavailable,
    *UNREACHABLE,
)
_LOSSES = 10  # lost connections in a row after which the cluster is given up: some 25 seconds
_TOUCHED = "CP004"  # the message of stamp_migration() that says what was touched
_TOO_LONG = "{}: a statement took longer than the {:g} s of CP_MIGRATE_STATEMENT_TIMEOUT"
_NOTE = "INSERT INTO tenancy.manifests (template, version, manifest) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
_VERSION = "SELECT version FROM tenancy.homes WHERE id = $1"


class Job:
    """What all lanes of a run share. `report` takes each outcome, once per home; `reins` hold back."""

    def __init__(
        self,
        databases: Databases,
        template: Template,
        target: int,
        reins: Reins,
        report: Callable[[HomeResult], None],
    ) -> None:
        self.databases = databases
        self.template = template
        self.target = target
        self.lock_timeout = databases.settings.lock_timeout
        self.statement_timeout = databases.settings.migrate_statement_timeout
        self.reins = reins
        self.report = report
        self.explainer = Explainer()
        self._scripts: dict[tuple[int, int], Script] = {}

    def script(self, version: int, target: int) -> Script:
        """From `version` to `target`, compiled once."""
        key = (version, target)
        if key not in self._scripts:
            self._scripts[key] = self.template.script(version, target)
        return self._scripts[key]

    def target_of(self, home: DueHome) -> int:
        """How far `home` goes, which a pin may have shortened since the plan."""
        return min(home.target, self.reins.pins.get(home.home_id, home.target))

    async def prepare(self, connection: asyncpg.Connection) -> None:
        """What the homes of a database share: else each would wait for the transaction of the one that brings it."""
        await install_extensions(connection, self.template)
        manifest = self.script(self.target - 1, self.target).manifest
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{int(self.lock_timeout * 1000)}ms'")
            await connection.execute(_NOTE, self.template.name, self.target, json.dumps(manifest))


@dataclass(slots=True)
class _Task:
    home: DueHome
    version: int
    target: int
    attempt: int = 0
    began: float = 0.0
    seconds: float = 0.0  # of work, over all attempts
    touched: Touched | None = None


class Lane:
    """Runs the homes of one cluster; every home is reported unless the run is stopped before its turn."""

    def __init__(self, job: Job, cluster: Cluster, homes: Sequence[DueHome]) -> None:
        self._job = job
        self._cluster = cluster
        self._fresh = deque(_Task(home, home.version, home.target) for home in homes)
        self._later: list[tuple[float, int, _Task]] = []  # heap by the time of the next attempt
        self._ticket = count()
        self._losses = 0

    async def run(self, workers: int) -> None:
        """Work the queue off with at most `workers` homes at a time."""
        async with asyncio.TaskGroup() as group:
            for _ in range(min(workers, len(self._fresh))):
                group.create_task(self._work())

    async def _work(self) -> None:
        async with Link(self._job.databases, self._cluster, self._job.prepare) as link:
            while (task := await self._take()) is not None:
                task.target = self._job.target_of(task.home)
                if task.version >= task.target:
                    self._report(task, "skipped", text=f"its tenant was pinned to version {task.target} meanwhile")
                    continue
                task.began = monotonic()
                try:
                    await self._migrate(link, task)
                except _FAILURES as error:
                    task.seconds += monotonic() - task.began
                    await self._recover(link, task, error)
                else:
                    task.seconds += monotonic() - task.began
                    self._losses = 0
                    self._report(task, "done")

    async def _take(self) -> _Task | None:
        """The next home; None when there is none. A home that another worker holds comes back through that worker."""
        while await self._job.reins.ready():
            if self._later and (not self._fresh or self._later[0][0] <= monotonic()):
                wait = self._later[0][0] - monotonic()
                if wait <= 0:
                    return heapq.heappop(self._later)[2]
                await self._job.reins.sleep(wait)
            elif self._fresh:
                return self._fresh.popleft()
            else:
                return None
        return None

    async def _migrate(self, link: Link, task: _Task) -> None:
        home, job = task.home, self._job
        connection = await link.to(home.place.database)
        script = job.script(task.version, task.target)
        message = script.message(home.home_id, home.schema_name, self._lock_timeout(task), job.statement_timeout)

        def listen(_: object, said: asyncpg.PostgresLogMessage) -> None:
            if said.sqlstate == _TOUCHED:
                objects = json.loads(said.message)
                task.touched = Touched(rows=objects.pop("rows"), objects=objects)

        connection.add_log_listener(listen)
        try:
            await connection.execute(message)
        finally:
            connection.remove_log_listener(listen)

    def _lock_timeout(self, task: _Task) -> float:
        return lock_timeout(task.attempt, self._job.lock_timeout)

    async def _recover(self, link: Link, task: _Task, error: BaseException) -> None:
        verdict = judge(error)
        if verdict is Verdict.LOST:
            await link.close()
            self._losses += 1
            if self._losses >= _LOSSES:
                self._give_up(task, error)
                return
            await self._job.reins.sleep(min(0.2 * 2**self._losses, 5.0))
        else:
            self._losses = 0
        if task.attempt + 1 >= ATTEMPTS or verdict is Verdict.FAIL:
            self._report(task, "failed", error, await self._explain(link, task, error))
        elif verdict is Verdict.REPLAN:
            await self._replan(link, task)
        else:
            self._requeue(task, pause(task.attempt))

    async def _explain(self, link: Link, task: _Task, error: BaseException) -> str:
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
            version = await connection.fetchval(_VERSION, task.home.home_id)
        except _FAILURES as error:
            await self._recover(link, task, error)
            return
        if version is None:
            self._report(task, "skipped", text="the home is gone")
        elif version > task.target:
            self._report(task, "skipped", text=f"the home is at version {version} by now")
        elif version == task.target:
            self._report(task, "done")
        else:
            task.version = version
            self._requeue(task, 0.0)

    def _requeue(self, task: _Task, wait: float) -> None:
        task.attempt += 1
        heapq.heappush(self._later, (monotonic() + wait, next(self._ticket), task))

    def _give_up(self, task: _Task, error: BaseException) -> None:
        """The cluster is gone: its other homes would only wait for the same answer."""
        waiting = [task, *self._fresh, *(later for _, _, later in self._later)]
        self._fresh.clear()
        self._later.clear()
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
                status=status,  # type: ignore[arg-type]
                milliseconds=round(task.seconds * 1000),
                attempts=task.attempt + 1,
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
