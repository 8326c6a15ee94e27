"""What operators do with a run: look at it, hold it, let it go on, end it. Its runner obeys within a second or two."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import InvalidInput, RunFinished
from control_plane.migrator.options import Options
from control_plane.pools.databases import Databases
from control_plane.registry import audit, run_progress, runs
from control_plane.registry.models import Run
from control_plane.registry.run_progress import Progress
from control_plane.registry.runs import FailureGroup


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the registry has it; `runner` says whether somebody works on it, `wish` what he has been asked.

    A `durable` one is run by workers, and taken over by the next one when its runner dies; before the first has taken
    it, its status is `queued`.
    """

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
    durable: bool
    runner: bool
    started_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class RunPage:
    items: list[RunRecord]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A run, with its failures by what went wrong, the most frequent first."""

    run: RunRecord
    failures: Sequence[FailureGroup]


async def show(databases: Databases, ref: str) -> RunRecord:
    """Raises `RunNotFound`, as do all that take a `ref`: an id, the beginning of one, or `last`."""
    async with databases.registry() as session:
        return await run_record(session, await runs.find(session, ref))


async def history(databases: Databases, limit: int = 20) -> list[RunRecord]:
    """The latest runs, latest first."""
    async with databases.registry() as session:
        return [await run_record(session, run) for run in await runs.page(session, limit)]


async def list_runs(
    databases: Databases,
    *,
    template: str | None = None,
    status: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> RunPage:
    """A page, the newest first. Raises `InvalidInput`."""
    before = _decode(cursor) if cursor is not None else None
    async with databases.registry() as session:
        rows = await runs.page(session, limit + 1, template=template, status=status, before=before)
        items = [await run_record(session, run) for run in rows[:limit]]
    return RunPage(items, _encode(items[-1]) if len(rows) > limit else None)


async def progress(databases: Databases, run_id: UUID, after: int) -> Progress:
    """How far the run has got, and what failed after that number of an outcome. One query; raises `RunNotFound`."""
    async with databases.registry() as session:
        return await run_progress.progress(session, run_id, after)


async def explain(databases: Databases, ref: str) -> Explanation:
    async with databases.registry() as session:
        run = await runs.find(session, ref)
        return Explanation(await run_record(session, run), await runs.failures(session, run.id))


async def pause(databases: Databases, ref: str, *, actor: str) -> RunRecord:
    """Homes in flight are finished, no further one is taken. Raises `RunFinished`."""
    return await _wish(databases, ref, "pause", actor)


async def abort(databases: Databases, ref: str, *, actor: str) -> RunRecord:
    """End a run for good; what it has done stays. Raises `RunFinished`."""
    return await _wish(databases, ref, "abort", actor)


async def go_on(
    databases: Databases, ref: str, *, actor: str, durable: bool = False
) -> tuple[RunRecord, Options | None]:
    """Let a paused run go on, or open one again that stopped with homes left.

    The options are those of a run without a runner: whoever gets them has to run it, or have a worker run it, if it is
    to be `durable`. Raises `RunFinished` for one that is done, and `RunInProgress`.
    """
    async with databases.registry.begin() as session:
        run = await runs.find(session, ref)
        if run.status == "done":
            raise RunFinished("The run is done.")
        audit.record(session, actor, "run.resume", run=str(run.id))
        alone = not await runs.has_runner(session, run.id)
        if alone:
            await runs.reopen(session, run, durable=durable)
        await runs.wish(session, run.id, None)
        await session.refresh(run)
        return await run_record(session, run), Options.of(run.target, run.options, actor) if alone else None


async def join(databases: Databases, ref: str, *, actor: str) -> tuple[RunRecord, Options]:
    """The options for one more runner of an open run. Raises `RunFinished`."""
    async with databases.registry() as session:
        run = await runs.find(session, ref)
        if run.status not in runs.OPEN:
            raise RunFinished(f"The run is {run.status}.", hint="cp migrate resume opens it again.")
        return await run_record(session, run), Options.of(run.target, run.options, actor)


async def _wish(databases: Databases, ref: str, what: str, actor: str) -> RunRecord:
    async with databases.registry.begin() as session:
        run = await runs.find(session, ref)
        if run.status not in runs.OPEN:
            raise RunFinished(f"The run is {run.status}.")
        audit.record(session, actor, f"run.{what}", run=str(run.id))
        await runs.wish(session, run.id, what)
        if what == "abort" and not await runs.has_runner(session, run.id):
            await runs.finish_run(session, run.id, "aborted", "it was aborted")
        await session.refresh(run)
        return await run_record(session, run)


def _encode(last: RunRecord) -> str:
    return base64.urlsafe_b64encode(f"{last.started_at.isoformat()} {last.id}".encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode("ascii")
        started_at, run_id = text.split(" ")
        return datetime.fromisoformat(started_at).astimezone(UTC), UUID(run_id)
    except (ValueError, OverflowError, binascii.Error):
        raise InvalidInput("The cursor is not one that a list of runs returned.") from None


async def run_record(session: AsyncSession, run: Run) -> RunRecord:
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
        durable=run.durable,
        runner=run.status in runs.OPEN and await runs.has_runner(session, run.id),
        started_at=run.started_at,
        heartbeat_at=run.heartbeat_at,
        finished_at=run.finished_at,
    )
