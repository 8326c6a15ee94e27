"""The ledger of `migrate-all`: runs and the outcome of each home. The databases themselves are the authority."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.types import Integer

from control_plane.registry.models import Home, Run, RunHome

# A runner holds its run's session lock for as long as it lives, so a run without a holder has lost its runner.
_HOLD = text("SELECT pg_advisory_lock(hashtextextended('cp.run:' || cast(:run AS text), 0))")
_LET_GO = text("SELECT pg_advisory_unlock(hashtextextended('cp.run:' || cast(:run AS text), 0))")
_CLOSE_ABANDONED = text(
    """
    WITH running AS MATERIALIZED (SELECT id FROM runs WHERE status = 'running'),
    abandoned AS MATERIALIZED (
        SELECT id FROM running WHERE pg_try_advisory_xact_lock(hashtextextended('cp.run:' || id::text, 0))
    )
    UPDATE runs SET status = 'halted', finished_at = now()
    FROM abandoned WHERE runs.id = abandoned.id AND runs.status = 'running'
    """
)


async def start_run(session: AsyncSession, template: str, target: int, planned: int) -> Run:
    """Record a new run; runs whose runner died are closed as halted."""
    await session.execute(_CLOSE_ABANDONED)
    run = Run(template=template, target=target, planned=planned)
    session.add(run)
    await session.flush()
    return run


async def hold_run(connection: AsyncConnection, run_id: UUID) -> None:
    """Mark the run as alive for as long as `connection` stays open, or until `let_go_run`."""
    await connection.execute(_HOLD, {"run": str(run_id)})


async def let_go_run(connection: AsyncConnection, run_id: UUID) -> None:
    await connection.execute(_LET_GO, {"run": str(run_id)})


async def record_homes(session: AsyncSession, run_id: UUID, outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Record outcomes (the columns of `RunHome` without run_id); a later outcome replaces the earlier one."""
    if not outcomes:
        return
    statement = insert(RunHome)
    key = {"run_id", "home_id"}
    changed = {column.name: statement.excluded[column.name] for column in RunHome.__table__.c if column.name not in key}
    await session.execute(
        statement.on_conflict_do_update(index_elements=sorted(key), set_=changed),
        [{"run_id": run_id, **outcome} for outcome in outcomes],
    )
    done, failed = (
        select(func.count()).where(RunHome.run_id == run_id, RunHome.status == status).scalar_subquery()
        for status in ("done", "failed")
    )
    await session.execute(update(Run).where(Run.id == run_id).values(done=done, failed=failed))


async def copy_versions(session: AsyncSession, versions: Mapping[UUID, int]) -> None:
    """Bring the registry's copies of home versions up to what their databases say."""
    if not versions:
        return
    reached = (
        func.unnest(
            bindparam("homes", list(versions), ARRAY(Uuid)),
            bindparam("versions", list(versions.values()), ARRAY(Integer)),
        )
        .table_valued("home_id", "version", name="reached")
        .render_derived()
    )
    await session.execute(
        update(Home)
        .where(Home.id == reached.c.home_id)
        .values(pattern_version=reached.c.version)
        .execution_options(synchronize_session=False)
    )


async def finish_run(session: AsyncSession, run_id: UUID, status: str) -> None:
    """Close the run as done, failed or halted."""
    await session.execute(update(Run).where(Run.id == run_id).values(status=status, finished_at=func.now()))
