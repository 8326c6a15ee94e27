"""The ledger of `migrate-all`: runs and the outcome of each home. The databases themselves are the authority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, Text, Uuid, bindparam, case, func, literal, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import aliased
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import Integer

from control_plane.errors import RunInProgress, RunNotFound
from control_plane.registry.conflicts import domain_errors
from control_plane.registry.models import Home, Run, RunHome

# A runner holds its run's session lock for as long as it lives, and says so every second: a run without a holder, or
# whose holder's machine has gone silent, has lost its runner. Shared, since several may work on one run. Who only asks
# looks for the lock and does not try to take it, or those who ask at the same time would take each other for runners.
_KEY = "hashtextextended('cp.run:' || CAST(:run AS text), 0)"
_HOLD = text(f"SELECT pg_advisory_lock_shared({_KEY})")
_LET_GO = text(f"SELECT pg_advisory_unlock_shared({_KEY})")
_HELD = """
    EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1 AND mode = 'ShareLock' AND granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('cp.run:' || CAST({run} AS text), 0)
    )
"""
_HAS_RUNNER = text("SELECT" + _HELD.format(run=":run"))
# One that is durable waits for the next worker.
_CLOSE_ABANDONED = text(
    """
    UPDATE runs SET status = 'halted', reason = 'its runner died', finished_at = now()
    WHERE status IN ('running', 'paused') AND NOT durable
      AND (heartbeat_at < now() - interval '15 seconds' OR NOT {held})
    """.format(held=_HELD.format(run="runs.id"))  # noqa: S608
)
_IS_SILENT = select(Run.heartbeat_at < func.now() - text("interval '15 seconds'"))
OPEN = ("queued", "running", "paused")


class Said(NamedTuple):
    """What the registry says to a runner that says that it is alive."""

    status: str
    wish: str | None
    reason: str | None


class FailureGroup(NamedTuple):
    """Homes that failed in the same way; `tenants` names a few of them, None for a shared home."""

    sqlstate: str | None
    error: str
    homes: int
    tenants: Sequence[str | None]


async def start_run(
    session: AsyncSession,
    template: str,
    target: int,
    planned: int,
    *,
    actor: str,
    options: dict[str, Any],
    durable: bool = False,
    run_id: UUID | None = None,
) -> Run:
    """Record a new run: one that its caller runs, or a `durable` one, which waits for a worker.

    Raises as `require_none_open`.
    """
    await require_none_open(session, template)
    run = Run(
        id=run_id or uuid4(),
        template=template,
        target=target,
        planned=planned,
        actor=actor,
        options=options,
        status="queued" if durable else "running",
        durable=durable,
        deadline_at=_deadline(options) if durable else None,
    )
    session.add(run)
    with domain_errors():
        await session.flush()
    await session.refresh(run)
    return run


async def require_none_open(session: AsyncSession, template: str, besides: UUID | None = None) -> None:
    """Raises `RunInProgress` while a run of `template` is open; runs whose runner died are closed as halted first."""
    await close_abandoned(session)
    query = select(Run.id, Run.status).where(Run.template == template, Run.status.in_(OPEN))
    if besides is not None:
        query = query.where(Run.id != besides)
    found = (await session.execute(query)).first()
    if found is not None:
        raise RunInProgress(
            f"Run {found.id} of template '{template}' is {found.status}, and a template has one run at a time.",
            errors=[{"run": str(found.id), "status": found.status}],
        )


def _deadline(options: Mapping[str, Any]) -> Any:
    """The registry's time after which no further home is taken, counted from now; None for none."""
    seconds = options.get("max_seconds")
    return None if seconds is None else func.now() + timedelta(seconds=seconds)


async def close_abandoned(session: AsyncSession) -> None:
    await session.execute(_CLOSE_ABANDONED)


async def find(session: AsyncSession, ref: str) -> Run:
    """A run by its id, by the beginning of it (4 characters or more), or `last`. Raises `RunNotFound`."""
    query = select(Run).order_by(Run.started_at.desc()).limit(2)
    if ref != "last":
        if len(ref) < 4:
            raise RunNotFound("Name a run by at least 4 characters of its id.")
        query = query.where(func.starts_with(Run.id.cast(Text), ref.lower()))
    found = (await session.scalars(query)).all()
    if not found or (ref != "last" and len(found) > 1):
        raise RunNotFound(f"There is no run {ref!r}." if not found else f"Several runs begin with {ref!r}.")
    return found[0]


async def page(
    session: AsyncSession,
    limit: int,
    *,
    template: str | None = None,
    status: str | None = None,
    before: tuple[datetime, UUID] | None = None,
) -> Sequence[Run]:
    """The newest first; `before` is the start and the id of the last one of the page before."""
    query = select(Run).order_by(Run.started_at.desc(), Run.id.desc()).limit(limit)
    if template is not None:
        query = query.where(Run.template == template)
    if status is not None:
        query = query.where(Run.status == status)
    if before is not None:
        query = query.where(tuple_(Run.started_at, Run.id) < before)
    return (await session.scalars(query)).all()


async def failed_homes(session: AsyncSession, template: str | None = None) -> Sequence[RunHome]:
    """Those of the latest run of each template (None = of all), by cluster and tenant."""
    later = aliased(Run)
    is_latest = ~select(later.id).where(later.template == Run.template, later.started_at > Run.started_at).exists()
    query = select(RunHome).join(Run, Run.id == RunHome.run_id).where(RunHome.status == "failed", is_latest)
    if template is not None:
        query = query.where(Run.template == template)
    return (await session.scalars(query.order_by(RunHome.cluster, RunHome.tenant, RunHome.home_id))).all()


async def failures(session: AsyncSession, run_id: UUID, named: int = 5) -> list[FailureGroup]:
    """By what went wrong, the most frequent first."""
    homes = func.count().label("homes")
    query = (
        select(RunHome.sqlstate, RunHome.error, homes, func.array_agg(RunHome.tenant).label("tenants"))
        .where(RunHome.run_id == run_id, RunHome.status == "failed")
        .group_by(RunHome.sqlstate, RunHome.error)
        .order_by(homes.desc(), RunHome.error)
    )
    rows = await session.execute(query)
    return [FailureGroup(state, error or "", count, tenants[:named]) for state, error, count, tenants in rows]


async def reopen(session: AsyncSession, run: Run, *, durable: bool) -> None:
    """A run without a runner goes on: here, or as a `durable` one with the next worker.

    A time that was given to it begins anew. Raises `RunInProgress` while another one of its template is open.
    """
    await require_none_open(session, run.template, besides=run.id)
    changed = {
        "status": "queued" if durable else "running",
        "durable": durable,
        "deadline_at": _deadline(run.options) if durable else None,
        "wish": None,
        "reason": None,
        "finished_at": None,
        "heartbeat_at": func.now(),
    }
    with domain_errors():
        await session.execute(update(Run).where(Run.id == run.id).values(changed))


async def wish(session: AsyncSession, run_id: UUID, what: str | None) -> None:
    """What an operator wants of the run's runners: pause, abort, or None, which is to go on."""
    await session.execute(update(Run).where(Run.id == run_id, Run.status.in_(OPEN)).values(wish=what))


async def beat(session: AsyncSession, run_id: UUID, wave: str | None) -> Said | None:
    """Say that the run has a runner; None when there is no such run any more."""
    paused = func.coalesce(Run.wish == "pause", False)
    row = (
        await session.execute(
            update(Run)
            .where(Run.id == run_id)
            .values(
                heartbeat_at=func.now(),
                wave=func.coalesce(wave, Run.wave),
                status=case((Run.status.not_in(OPEN), Run.status), (paused, "paused"), else_="running"),
            )
            .returning(Run.status, Run.wish, Run.reason)
            .execution_options(synchronize_session=False)
        )
    ).one_or_none()
    return Said(*row) if row is not None else None


async def hold_run(connection: AsyncConnection, run_id: UUID) -> None:
    """Mark the run as alive for as long as `connection` stays open, or until `let_go_run`."""
    await connection.execute(_HOLD, {"run": str(run_id)})


async def let_go_run(connection: AsyncConnection, run_id: UUID) -> None:
    await connection.execute(_LET_GO, {"run": str(run_id)})


async def has_runner(session: AsyncSession, run_id: UUID) -> bool:
    return bool((await session.execute(_HAS_RUNNER, {"run": str(run_id)})).scalar_one())


async def is_deserted(session: AsyncSession, run_id: UUID) -> bool:
    """Whether the run has no runner, or one that has been silent for long."""
    silent = (await session.execute(_IS_SILENT.where(Run.id == run_id))).scalar_one()
    return silent or not await has_runner(session, run_id)


async def finish_run(session: AsyncSession, run_id: UUID, status: str, reason: str | None = None) -> None:
    """Close the run as done, failed, halted or aborted; as done or failed only the last of its runners closes it."""
    found: Any = status
    if status in ("done", "failed"):
        if await has_runner(session, run_id):
            return
        found = case((Run.failed > 0, "failed"), else_=status)
    await session.execute(
        update(Run)
        .where(Run.id == run_id, Run.status.in_(OPEN))
        .values(status=found, reason=reason, wish=None, finished_at=func.now())
        .execution_options(synchronize_session=False)
    )


async def record_plan(session: AsyncSession, run_id: UUID, homes: Sequence[Mapping[str, Any]]) -> None:
    """Homes that are to be brought up: cluster, tenant, home_id, from_version and to_version of each."""
    if not homes:
        return
    names = ("home_id", "cluster", "tenant", "from_version", "to_version")
    planned = _given(names, homes)
    columns = ("run_id", *names, "status", "milliseconds")
    rows = select(literal(run_id, Uuid), *(planned.c[name] for name in names), literal("planned"), literal(0))
    await _lock(session, run_id)
    await session.execute(insert(RunHome).from_select(columns, rows).on_conflict_do_nothing())
    known = select(func.count()).where(RunHome.run_id == run_id).scalar_subquery()
    await session.execute(update(Run).where(Run.id == run_id).values(planned=known))


async def settle_planned(session: AsyncSession, run_id: UUID, due: Sequence[UUID], unreached: Sequence[str]) -> None:
    """Close what an earlier runner of the run had under way and could not record: what is not due any more is done.

    Nothing is known of homes in the databases `unreached`.
    """
    await _lock(session, run_id)
    open_homes = (RunHome.run_id == run_id, RunHome.status == "planned", RunHome.home_id.not_in(due))
    done = select(Home.id).where(
        Home.ready, Home.database.not_in(unreached), Home.pattern_version >= RunHome.to_version
    )
    gone = ~select(Home.id).where(Home.id == RunHome.home_id).exists()
    await session.execute(
        update(RunHome)
        .where(*open_homes, done.where(Home.id == RunHome.home_id).exists())
        .values(status="done")
        .execution_options(synchronize_session=False)
    )
    await session.execute(
        update(RunHome).where(*open_homes, gone).values(status="skipped").execution_options(synchronize_session=False)
    )
    await _count(session, run_id)


async def record_homes(session: AsyncSession, run_id: UUID, outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Record outcomes (the columns of `RunHome` without run_id); a later outcome replaces the earlier one."""
    if not outcomes:
        return
    await _lock(session, run_id)
    names = tuple(column.name for column in RunHome.__table__.c if column.name not in ("run_id", "number"))
    given = _given(names, outcomes)
    before = select(RunHome.status).where(RunHome.run_id == run_id, RunHome.home_id.in_(select(given.c.home_id)))
    counted = Counter(outcome["status"] for outcome in outcomes)
    counted.subtract((await session.scalars(before)).all())
    statement = insert(RunHome).from_select(
        ("run_id", *names), select(literal(run_id, Uuid), *(given.c[name] for name in names))
    )
    changed = {name: statement.excluded[name] for name in (*names, "number") if name != "home_id"}
    await session.execute(statement.on_conflict_do_update(index_elements=["run_id", "home_id"], set_=changed))
    await _add_up(session, run_id, counted["done"], counted["failed"])


def _given(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> TableValuedAlias:
    """Values of columns of `RunHome` as a table: arrays, so that a statement is the same for any number of rows."""
    arrays = (
        bindparam(name, [row[name] for row in rows], ARRAY(RunHome.__table__.c[name].type), unique=True)
        for name in names
    )
    return func.unnest(*arrays).table_valued(*names, name="given").render_derived()


async def _lock(session: AsyncSession, run_id: UUID) -> None:
    """Outcomes of a run are numbered in the order of their commits: who reads on after a number misses none."""
    await session.execute(select(Run.id).where(Run.id == run_id).with_for_update(key_share=True))


async def _add_up(session: AsyncSession, run_id: UUID, done: int, failed: int) -> None:
    """More or, where an outcome was replaced, fewer. To count a large run each time would cost more than it records."""
    await session.execute(
        update(Run)
        .where(Run.id == run_id)
        .values(done=Run.done + done, failed=Run.failed + failed)
        .execution_options(synchronize_session=False)
    )


async def _count(session: AsyncSession, run_id: UUID) -> None:
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
