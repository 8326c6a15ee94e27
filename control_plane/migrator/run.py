"""`migrate-all`: every home of a template to one version.

State is in the databases, so a run that was killed is resumed by running again, and several runners may share one:
what another has done is found done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from time import monotonic
from typing import Literal
from uuid import UUID, uuid4

from control_plane.isolation.tenancy_schema import latest_version
from control_plane.migrator.examination import examine
from control_plane.migrator.halting import Halting
from control_plane.migrator.job import Job
from control_plane.migrator.lane import Lane
from control_plane.migrator.lease import Lease, hold
from control_plane.migrator.ledger import Ledger, open_ledger
from control_plane.migrator.options import Options
from control_plane.migrator.plan import DueHome, Plan, make_plan
from control_plane.migrator.reins import Reins
from control_plane.migrator.removals import early_removals, record_override, require_minimum, require_sunset
from control_plane.migrator.results import (
    Event,
    HomeResult,
    Paced,
    Planned,
    RunResult,
    Started,
    StepProgress,
    Waiting,
    WaveBegun,
)
from control_plane.migrator.smoke import smoke_home
from control_plane.migrator.tenancy import bring_up
from control_plane.migrator.waves import Wave, make_waves, one_wave
from control_plane.pools.databases import Databases
from control_plane.registry import runs, template_versions
from control_plane.registry.fleet import labelled_homes
from control_plane.templates import Template
from control_plane.templates.release import release

Status = Literal["done", "failed", "halted", "aborted"]


def _ignore(event: Event) -> None:
    return None


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


async def plan_waves(databases: Databases, options: Options, plan: Plan) -> list[Wave]:
    """The homes of `plan` in the order in which they would run."""
    if options.only:
        return one_wave(plan.homes)
    async with databases.registry() as session:
        internal = await labelled_homes(session, plan.template.name, options.policy.internal) if plan.homes else set()
    return make_waves(plan.homes, options.policy.waves, internal)


async def migrate_all(
    databases: Databases,
    template: Template,
    options: Options,
    *,
    run_id: UUID | None = None,
    stop: asyncio.Event | None = None,
    listener: Callable[[Event], None] = _ignore,
    hand_over: bool = False,
) -> RunResult:
    """Bring the homes of `template` to the target; a home that cannot go stays where it was and is reported.

    `run_id` names an open run to work on, beside its runner or in his place. Setting `stop` lets what is in flight
    finish, of a backfill the batch, and ends the run as halted, or leaves it open for its next runner (`hand_over`);
    cancelling the task cancels it, which undoes it. Raises as `plan_migration`, `TemplateRefused`, and `RunInProgress`
    while another run of the template is open, before anything runs.
    """
    run = _Run(databases, template, options, Reins(stop or asyncio.Event()), listener, run_id, hand_over)
    return await run.execute()


@dataclass(slots=True)
class _Run:
    databases: Databases
    template: Template
    options: Options
    reins: Reins
    listener: Callable[[Event], None]
    run_id: UUID | None
    hand_over: bool
    counts: dict[str, int] = field(default_factory=lambda: {"done": 0, "failed": 0, "skipped": 0})
    seen: set[UUID] = field(default_factory=set)  # homes with an outcome
    planned: int = 0
    ledger: Ledger | None = None
    halting: Halting = field(init=False)
    trial: bool = False  # the present wave is one
    migrated: list[UUID] = field(default_factory=list)  # homes of the present wave that this run has brought up

    def __post_init__(self) -> None:
        self.halting = Halting(self.options.halt)

    async def execute(self) -> RunResult:
        began = monotonic()
        plan = await plan_migration(self.databases, self.template, self.options)
        if plan.homes and self.run_id is None:
            await self._require_alone()
        await examine(self.databases, self.template, plan)
        await bring_up(self.databases, self.template, plan.outdated)
        await self._release(plan)
        self.listener(Planned(plan))
        if plan.homes or self.run_id is not None:
            await self._record(plan)
        return RunResult(
            run_id=self.run_id,
            template=self.template.name,
            target=plan.target,
            status=self._status(plan),
            done=self.counts["done"],
            failed=self.counts["failed"],
            skipped=self.counts["skipped"],
            left=self.planned - len(self.seen),
            current=plan.current,
            seconds=monotonic() - began,
            reason=self.reins.reason,
            plan=plan,
        )

    async def _require_alone(self) -> None:
        async with self.databases.registry() as session:
            await runs.require_none_open(session, self.template.name)

    async def _record(self, plan: Plan) -> None:
        """Work the plan off, in the name of a run that the registry knows."""
        run_id = self.run_id or uuid4()
        # Held before it is recorded: a run without a holder is taken for one whose runner died.
        async with hold(self.databases, run_id, self.template.name, self.reins) as lease:
            await (self._start(run_id, plan) if self.run_id is None else self._settle(run_id, plan))
            self.run_id = run_id
            self.listener(Started(run_id))
            async with lease.beating(), open_ledger(self.databases, run_id) as self.ledger:
                with _limited(self.reins, self.options.max_seconds):
                    await self._work_off(plan, lease)
        if not (self.hand_over and self._was_stopped):
            async with self.databases.registry.begin() as session:
                await runs.finish_run(session, run_id, self._status(plan), self.reins.reason)

    @property
    def _was_stopped(self) -> bool:
        """By whoever started it, and for no reason of the run's own."""
        return self.reins.stopped and self.reins.reason is None and not self.reins.aborted

    async def _start(self, run_id: UUID, plan: Plan) -> None:
        async with self.databases.registry.begin() as session:
            await runs.start_run(
                session,
                self.template.name,
                plan.target,
                len(plan.homes),
                actor=self.options.actor,
                options=self.options.recorded(),
                run_id=run_id,
            )

    async def _settle(self, run_id: UUID, plan: Plan) -> None:
        """An earlier runner may have brought up more homes than he could record."""
        due = [home.home_id for home in plan.homes]
        async with self.databases.registry.begin() as session:
            await runs.settle_planned(session, run_id, due, [each.place.database for each in plan.unreached])

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

    async def _work_off(self, plan: Plan, lease: Lease) -> None:
        job = Job(self.databases, self.template, plan.target, self.reins, self._report, self._progress)
        try:
            await self._sweep(job, plan, lease)
        finally:
            await job.links.close()

    async def _sweep(self, job: Job, plan: Plan, lease: Lease) -> None:
        """The plan, then whatever was provisioned meanwhile from an older version, until a sweep finds nothing."""
        waves = await plan_waves(self.databases, self.options, plan)
        while waves:
            assert self.ledger is not None
            await self.ledger.plan(plan.homes)
            self.planned += sum(len(wave.homes) for wave in waves)
            for number, wave in enumerate(waves, 1):
                await self._run_wave(job, wave, lease, last=number == len(waves))
                if self.options.approve and number < len(waves) and not self.reins.stopped:
                    await job.links.close()  # it may take until tomorrow
                    await self._wait(lease, wave)
            if self.reins.stopped:
                return
            plan = await make_plan(
                self.databases, self.template, plan.target, only=self.options.only, leave_out=self.seen
            )  # fmt: skip
            waves = one_wave(plan.homes)
            if plan.homes:
                self.listener(Planned(plan))

    async def _run_wave(self, job: Job, wave: Wave, lease: Lease, *, last: bool) -> None:
        """All clusters at the same time, each within its own limit. A trial without others to spare is none."""
        if self.reins.stopped:
            return
        self.listener(WaveBegun(wave.name, len(wave.homes)))
        lease.wave, self.trial, self.migrated = wave.name, wave.trial, []
        workers = self.options.concurrency or self.databases.settings.migrate_concurrency
        async with asyncio.TaskGroup() as group:
            for _, lane in groupby(wave.homes, key=lambda home: home.place.cluster.id):
                of_cluster = list(lane)
                group.create_task(Lane(job, of_cluster[0].place.cluster, of_cluster, workers).run())
        if wave.trial and not self.reins.stopped:
            reason = (None if last else self.halting.judge_trial()) or await self._smoke(wave.homes)
            if reason is not None:
                self.reins.halt(reason)

    async def _smoke(self, homes: Sequence[DueHome]) -> str | None:
        """Call what is new, in the homes of a trial; why that fails."""
        for home in homes:
            if home.home_id in self.migrated:
                complaint = await smoke_home(self.databases, self.template, home.target, home)
                if complaint is not None:
                    return f"smoke.sql of version {home.target} fails in {home.label}: {complaint}"
        return None

    async def _wait(self, lease: Lease, wave: Wave) -> None:
        await lease.pause()
        self.listener(Waiting(lease.run_id, wave.name))
        await self.reins.ready()

    def _report(self, result: HomeResult) -> None:
        self.seen.add(result.home_id)
        self.counts[result.status] += 1
        if result.status == "done":
            self.migrated.append(result.home_id)
        if self.ledger is not None:
            self.ledger.add(result)
        self.listener(result)
        if (reason := self.halting.judge(result, trial=self.trial)) is not None:
            self.reins.halt(reason)

    def _progress(self, progress: StepProgress | Paced) -> None:
        if self.ledger is not None and isinstance(progress, StepProgress):
            self.ledger.reach(progress.home_id, progress.version)
        self.listener(progress)

    def _status(self, plan: Plan) -> Status:
        if self.reins.stopped:
            return "aborted" if self.reins.aborted else "halted"
        return "failed" if self.counts["failed"] or plan.unreached else "done"


@contextmanager
def _limited(reins: Reins, seconds: float | None) -> Iterator[None]:
    """Stops the run after so many seconds; None is no limit."""
    timer = None
    if seconds is not None:
        timer = asyncio.get_running_loop().call_later(seconds, reins.halt, "its time is up")
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
