"""How far a run has got, in one query, for whoever follows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import RunNotFound
from control_plane.registry.models import Run, RunHome

MOST = 200  # failed homes of one answer


class Progress(NamedTuple):
    """The run as it is, and the homes whose failure was recorded after a number, at most `MOST` of them."""

    run: Run
    failures: Sequence[RunHome]


async def progress(session: AsyncSession, run_id: UUID, after: int) -> Progress:
    """Raises `RunNotFound`."""
    new = and_(RunHome.run_id == Run.id, RunHome.status == "failed", RunHome.number > after)
    query = select(Run, RunHome).outerjoin(RunHome, new).where(Run.id == run_id).order_by(RunHome.number).limit(MOST)
    rows = (await session.execute(query)).all()
    if not rows:
        raise RunNotFound
    homes: list[RunHome | None] = [home for _, home in rows]  # of an outer join
    return Progress(rows[0][0], [home for home in homes if home is not None])
