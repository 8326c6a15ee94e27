"""Who still calls what is deprecated, per tenant and day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.registry.models import DeprecatedCall

KEPT_DAYS = 400


class Called(NamedTuple):
    """What was called: `resource` is a resource, or `rpc/<function>`."""

    day: date
    tenant_id: UUID
    template: str
    api: int
    resource: str


class Use(NamedTuple):
    """Of one resource of one API version: how many tenants called it, and how often."""

    tenants: frozenset[UUID]
    calls: int


async def add(session: AsyncSession, calls: Mapping[Called, int]) -> None:
    """Add to what is recorded, in one order, so that processes that do so at once do not deadlock."""
    if not calls:
        return
    statement = insert(DeprecatedCall)
    key = [column.name for column in DeprecatedCall.__table__.primary_key]
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=key, set_={"calls": DeprecatedCall.calls + statement.excluded.calls}
        ),
        [{**called._asdict(), "calls": number} for called, number in sorted(calls.items())],
    )


async def forget_old(session: AsyncSession) -> None:
    """Drop what is older than `KEPT_DAYS`."""
    await session.execute(delete(DeprecatedCall).where(DeprecatedCall.day < _days_ago(KEPT_DAYS)))


async def recent(session: AsyncSession, days: int) -> dict[tuple[str, int, str], Use]:
    """By template, API version and resource, over the last `days` days including today."""
    query = (
        select(
            DeprecatedCall.template,
            DeprecatedCall.api,
            DeprecatedCall.resource,
            func.array_agg(DeprecatedCall.tenant_id.distinct()),
            func.sum(DeprecatedCall.calls),
        )
        .where(DeprecatedCall.day > _days_ago(days))
        .group_by(DeprecatedCall.template, DeprecatedCall.api, DeprecatedCall.resource)
    )
    rows = await session.execute(query)
    return {(template, api, resource): Use(frozenset(who), int(calls)) for template, api, resource, who, calls in rows}


def _days_ago(days: int) -> date:
    return datetime.now(UTC).date() - timedelta(days=days)
