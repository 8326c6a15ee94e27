"""What operators do with a run: look at it, hold it, let it go on, end it. Its runner obeys within a second or two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import RunFinished
from control_plane.migrator.options import Options
from control_plane.pools.databases import Databases
from control_plane.registry import audit, runs
from control_plane.registry.models import Run
from control_plane.registry.runs import FailureGroup


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the registry has it; `runner` says whether somebody works on it, `wish` what he has been asked."""

    id: UUID
    template: str
    target: int
    status: str
    wave: str | None
    wish: str | None
    reason: str | None
    planned: int
    done: int
    failed: int
    actor: str
    runner: bool
    started_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A run, with its failures by what went wrong, the most frequent first."""

    run: RunRecord
    failures: Sequence[FailureGroup]


async def show(databases: Databases, ref: str) -> RunRecord:
    """Raises `RunNotFound`, as do all that take a `ref`: an id, the beginning of one, or `last`."""
    async with databases.registry() as session:
        return await _record(session, await runs.find(session, ref))


async def history(databases: Databases, limit: int = 20) -> list[RunRecord]:
    """The latest runs, latest first."""
    async with databases.registry() as session:
        return [await _record(session, run) for run in await runs.latest(session, limit)]


async def explain(databases: Databases, ref: str) -> Explanation:
    async with databases.registry() as session:
        run = await runs.find(session, ref)
        return Explanation(await _record(session, run), await runs.failures(session, run.id))


async def pause(databases: Databases, ref: str, *, actor: str) -> RunRecord:
    """Homes in flight are finished, no further one is taken. Raises `RunFinished`."""
    return await _wish(databases, ref, "pause", actor)


async def abort(databases: Databases, ref: str, *, actor: str) -> RunRecord:
    """End a run for good; what it has done stays. Raises `RunFinished`."""
    return await _wish(databases, ref, "abort", actor)


async def go_on(databases: Databases, ref: str, *, actor: str) -> tuple[RunRecord, Options | None]:
    """Let a paused run go on, or open one again that stopped with homes left.

    The options are those of a run without a runner: whoever gets them has to run it. Raises `RunFinished` for one that
    is done.
    """
    async with databases.registry.begin() as session:
        run = await runs.find(session, ref)
        if run.status == "done":
            raise RunFinished("The run is done.")
        audit.record(session, actor, "run.resume", run=str(run.id))
        alone = not await runs.has_runner(session, run.id)
        if alone:
            await runs.reopen(session, run.id)
        await runs.wish(session, run.id, None)
        await session.refresh(run)
        return await _record(session, run), Options.of(run.target, run.options, actor) if alone else None


async def join(databases: Databases, ref: str, *, actor: str) -> tuple[RunRecord, Options]:
    """The options for one more runner of an open run. Raises `RunFinished`."""
    async with databases.registry() as session:
        run = await runs.find(session, ref)
        if run.status not in ("running", "paused"):
            raise RunFinished(f"The run is {run.status}.", hint="cp migrate resume opens it again.")
        return await _record(session, run), Options.of(run.target, run.options, actor)


async def _wish(databases: Databases, ref: str, what: str, actor: str) -> RunRecord:
    async with databases.registry.begin() as session:
        run = await runs.find(session, ref)
        if run.status not in ("running", "paused"):
            raise RunFinished(f"The run is {run.status}.")
        audit.record(session, actor, f"run.{what}", run=str(run.id))
        await runs.wish(session, run.id, what)
        if what == "abort" and not await runs.has_runner(session, run.id):
            await runs.finish_run(session, run.id, "aborted", "it was aborted")
        await session.refresh(run)
        return await _record(session, run)


async def _record(session: AsyncSession, run: Run) -> RunRecord:
    return RunRecord(
        id=run.id,
        template=run.template,
        target=run.target,
        status=run.status,
        wave=run.wave,
        wish=run.wish,
        reason=run.reason,
        planned=run.planned,
        done=run.done,
        failed=run.failed,
        actor=run.actor,
        runner=await runs.has_runner(session, run.id),
        started_at=run.started_at,
        heartbeat_at=run.heartbeat_at,
        finished_at=run.finished_at,
    )
