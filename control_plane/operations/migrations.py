"""Runs of `migrate-all` that were asked for and that workers carry out, each under the name that its asker knows."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from control_plane.errors import ControlPlaneError, IdempotencyKeyReused, RunInProgress
from control_plane.migrator import Options, Plan, Wave, migrate_all, operators, plan_migration, plan_waves
from control_plane.migrator.examination import examine
from control_plane.migrator.operators import RunRecord
from control_plane.operations import jobs
from control_plane.operations.failures import PASSING
from control_plane.operations.jobs import Held
from control_plane.pools.databases import Databases
from control_plane.registry import operations, runs
from control_plane.registry.models import Run
from control_plane.templates import Templates

if TYPE_CHECKING:
    from control_plane.migrator.locks import VersionLocks

logger = logging.getLogger(__name__)

_SHOWN = 3  # findings of a refused template in the reason of its run


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do, with the lock reports of versions that are new to the fleet."""

    plan: Plan
    waves: Sequence[Wave]
    locks: Sequence[VersionLocks]


class Migrations:
    """A run is recorded first, with a job that names it; it stays open until somebody has carried it to its end."""

    def __init__(self, databases: Databases, templates: Templates) -> None:
        self._databases = databases
        self._templates = templates

    async def preview(self, template: str, options: Options) -> Preview:
        """Changes nothing. Raises `TemplateNotFound`, and as `plan_migration` and `examine`."""
        plan = await plan_migration(self._databases, self._templates[template], options)
        waves = await plan_waves(self._databases, options, plan)
        return Preview(plan, waves, await examine(self._databases, plan.template, plan))

    async def start(self, template: str, options: Options, *, idempotency_key: str | None = None) -> RunRecord:
        """Record a run that the next worker takes.

        The same `idempotency_key` of the same actor answers the first request's run. Raises `RunInProgress`,
        `IdempotencyKeyReused`, and as `preview`.
        """
        request = _fingerprint(template, options)
        replayed = await self._replay(options.actor, idempotency_key, request)
        if replayed is not None:
            return replayed
        try:
            async with self._databases.registry() as session:
                await runs.require_none_open(session, self._templates[template].name)
            plan = (await self.preview(template, options)).plan
            async with self._databases.registry.begin() as session:
                run = await runs.start_run(
                    session,
                    template,
                    plan.target,
                    len(plan.homes),
                    actor=options.actor,
                    options=options.recorded(),
                    durable=True,
                )
                if idempotency_key is not None:
                    await operations.bind_key(session, options.actor, idempotency_key, request, run_id=run.id)
                await jobs.enqueue_run(session, run.id)
                return await operators.run_record(session, run)
        except (RunInProgress, IntegrityError):
            # The same request may have come twice at once; then its twin has begun the run, or taken the key.
            replayed = await self._replay(options.actor, idempotency_key, request)
            if replayed is None:
                raise
            return replayed

    async def resume(self, ref: str, *, actor: str) -> RunRecord:
        """Let a paused run go on; one without a runner is taken by the next worker. Raises as `operators.go_on`."""
        record, options = await operators.go_on(self._databases, ref, actor=actor, durable=True)
        if options is not None:
            # A process that dies before this leaves a run without a job, which workers look for.
            async with self._databases.registry.begin() as session:
                await jobs.enqueue_run(session, record.id)
        return record

    async def advance(self, run_id: UUID, stop: asyncio.Event) -> None:
        """One job: work on the run to its end, or until `stop`. Raises what makes the job come back."""
        claimed = await self._claim(run_id)
        if claimed is None:
            return
        name, options = claimed
        try:
            async with _followed(stop) as own:
                template = self._templates[name]
                await migrate_all(self._databases, template, options, run_id=run_id, stop=own, hand_over=True)
        except PASSING:
            raise
        except Exception as error:
            logger.warning("Run %s cannot go on.", run_id, exc_info=error)
            async with self._databases.registry.begin() as session:
                await runs.finish_run(session, run_id, "halted", _reason(error))
            return
        if stop.is_set():
            raise Held  # unless the run is over, which the next job finds out

    async def _claim(self, run_id: UUID) -> tuple[str, Options] | None:
        """The run's template and how to go on with it; None when it is over. Raises `Held`."""
        async with self._databases.registry() as session:
            row = (await session.execute(select(Run, func.now()).where(Run.id == run_id))).one_or_none()
            if row is None or row[0].status not in runs.OPEN:
                return None
            run, now = row
            if not await runs.is_deserted(session, run_id):
                raise Held
            options = Options.of(run.target, run.options, run.actor)
            if run.deadline_at is not None:
                options.max_seconds = max(0.0, (run.deadline_at - now).total_seconds())
            return run.template, options

    async def _replay(self, actor: str, key: str | None, request: str) -> RunRecord | None:
        if key is None:
            return None
        async with self._databases.registry() as session:
            bound = await operations.by_key(session, actor, key)
            if bound is None:
                return None
            if bound.request_hash != request or bound.run_id is None:
                raise IdempotencyKeyReused
            return await operators.run_record(session, await session.get_one(Run, bound.run_id))


@asynccontextmanager
async def _followed(stop: asyncio.Event) -> AsyncIterator[asyncio.Event]:
    """An event of the run's own, which a run that halts sets: one that `stop` sets, too."""
    own = asyncio.Event()

    async def follow() -> None:
        await stop.wait()
        own.set()

    following = asyncio.create_task(follow())
    try:
        yield own
    finally:
        following.cancel()


def _fingerprint(template: str, options: Options) -> str:
    request = {"template": template, "target": options.target, **options.recorded()}
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _reason(error: Exception) -> str:
    """Why a run cannot go on: our own errors as they are, of anything else nothing but that it happened."""
    if not isinstance(error, ControlPlaneError):
        return "of an internal error, which the worker's log tells"
    shown = [f"{each['place']}: {each['problem']}" for each in error.errors[:_SHOWN] if "place" in each]
    return "; ".join([error.message, *shown])
