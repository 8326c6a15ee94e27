"""`migrate-all`: every home of a template to one version.

State is in the databases, so a run that was killed is resumed by running again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from time import monotonic
from typing import Literal
from uuid import UUID

from control_plane.isolation.tenancy_schema import latest_version
from control_plane.migrator.examination import examine
from control_plane.migrator.lane import Job, Lane
from control_plane.migrator.ledger import Ledger, open_ledger
from control_plane.migrator.plan import DueHome, Plan, make_plan
from control_plane.migrator.removals import early_removals, record_override, require_minimum, require_sunset
from control_plane.migrator.results import Event, HomeResult, Planned, RunResult
from control_plane.migrator.tenancy import bring_up
from control_plane.pools.databases import Databases
from control_plane.registry import runs, template_versions
from control_plane.templates import Template
from control_plane.templates.release import release


def _ignore(event: Event) -> None:
    return None


@dataclass(slots=True)
class Options:
    """`only` are slugs; `concurrency` is homes at a time per cluster; `halt_failures` stops after that many.

    `override_sunset` is the reason why something may go before its sunset; `actor` is who says so.
    """

    target: int | None = None
    only: Sequence[str] = ()
    concurrency: int | None = None
    halt_failures: int | None = None
    override_sunset: str | None = None
    actor: str = "library"


async def plan_migration(databases: Databases, template: Template, options: Options) -> Plan:
    """What `migrate_all` would do; changes nothing.

    Raises as `make_plan`, `TemplateChanged`, `BeforeSunset` and `BelowMinimum`.
    """
    async with databases.registry() as session:
        released = await template_versions.current(session, template)
    plan = await make_plan(databases, template, options.target, only=options.only, tenancy_version=latest_version())
    require_sunset(template, released, plan.target, options.override_sunset)
    require_minimum(template, released, plan)
    return plan


async def migrate_all(
    databases: Databases,
    template: Template,
    options: Options,
    *,
    stop: asyncio.Event | None = None,
    listener: Callable[[Event], None] = _ignore,
) -> RunResult:
    """Bring the homes of `template` to the target; a home that cannot go stays where it was and is reported.

    Setting `stop` lets the homes in flight finish and ends the run as halted; cancelling the task cancels them, which
    leaves them where they were. Raises as `plan_migration`, and `TemplateRefused`, before anything runs.
    """
    run = _Run(databases, template, options, stop or asyncio.Event(), listener)
    return await run.execute()


@dataclass(slots=True)
class _Run:
    databases: Databases
    template: Template
    options: Options
    stop: asyncio.Event
    listener: Callable[[Event], None]
    counts: dict[str, int] = field(default_factory=lambda: {"done": 0, "failed": 0, "skipped": 0})
    seen: set[UUID] = field(default_factory=set)  # homes with an outcome
    planned: int = 0
    ledger: Ledger | None = None

    async def execute(self) -> RunResult:
        began = monotonic()
        plan = await plan_migration(self.databases, self.template, self.options)
        await examine(self.databases, self.template, plan)
        await bring_up(self.databases, self.template, plan.outdated)
        await self._release(plan)
        self.listener(Planned(plan))
        if plan.homes:
            async with open_ledger(self.databases, self.template.name, plan.target, len(plan.homes)) as ledger:
                self.ledger = ledger
                await self._work_off(plan)
                await ledger.flush()
                async with self.databases.registry.begin() as session:
                    await runs.finish_run(session, ledger.run_id, self._status(plan))
        return RunResult(
            run_id=self.ledger.run_id if self.ledger else None,
            template=self.template.name,
            target=plan.target,
            status=self._status(plan),
            done=self.counts["done"],
            failed=self.counts["failed"],
            skipped=self.counts["skipped"],
            left=self.planned - len(self.seen),
            current=plan.current,
            seconds=monotonic() - began,
            plan=plan,
        )

    async def _release(self, plan: Plan) -> None:
        """Fix the checksums and let new tenants begin at the target; a trial on single tenants releases nothing.

        What was never released has been examined before, also for a trial.
        """
        async with self.databases.registry.begin() as session:
            released = await template_versions.current(session, self.template)
            early = early_removals(self.template, released, plan.target)
            if early and self.options.override_sunset:
                record_override(session, self.options.actor, self.template, early, self.options.override_sunset)
            if not self.options.only:
                await release(session, self.template, plan.target)
            await runs.copy_versions(session, plan.copies)

    async def _work_off(self, plan: Plan) -> None:
        """The plan, then whatever was provisioned meanwhile from an older version, until a sweep finds nothing."""
        job = Job(self.databases, self.template, plan.target, self.stop, self._report)
        while plan.homes:
            self.planned += len(plan.homes)
            for wave in plan.waves:
                await self._run_wave(job, wave)
            if self.stop.is_set():
                return
            plan = await make_plan(
                self.databases, self.template, plan.target, only=self.options.only, leave_out=self.seen
            )  # fmt: skip
            if plan.homes:
                self.listener(Planned(plan))

    async def _run_wave(self, job: Job, homes: Sequence[DueHome]) -> None:
        """All clusters at the same time, each within its own limit."""
        workers = self.options.concurrency or self.databases.settings.migrate_concurrency
        async with asyncio.TaskGroup() as group:
            for _, lane in groupby(homes, key=lambda home: home.place.cluster.id):
                of_cluster = list(lane)
                group.create_task(Lane(job, of_cluster[0].place.cluster, of_cluster).run(workers))

    def _report(self, result: HomeResult) -> None:
        self.seen.add(result.home_id)
        self.counts[result.status] += 1
        if self.ledger is not None:
            self.ledger.add(result)
        self.listener(result)
        if self.options.halt_failures is not None and self.counts["failed"] >= self.options.halt_failures:
            self.stop.set()

    def _status(self, plan: Plan) -> Literal["done", "failed", "halted"]:
        if self.stop.is_set():
            return "halted"
        return "failed" if self.counts["failed"] or plan.unreached else "done"
