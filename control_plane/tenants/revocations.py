"""Taking tokens back before they expire: one by its id, or those of a user, a tenant or a platform subject so far.

Never by the token itself, which has no business in a registry or a log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import InvalidInput
from control_plane.identity.claims import MAX_AGE, MAX_TEXT
from control_plane.pools.databases import Databases
from control_plane.registry import audit, revocations, tenants
from control_plane.registry.models import Revocation

Kind = Literal["token", "user", "tenant", "subject"]

LONGEST = timedelta(seconds=MAX_AGE)
AHEAD = timedelta(minutes=5)  # how far the clock of an issuer may be before the registry's


@dataclass(frozen=True)
class Target:
    """What is taken back; `kind` says which of the others are given.

    `token`: `token_id`, its `jti`. `user`: `tenant` (slug or id) and `user_id`. `tenant`: `tenant`. `subject`: that of
    platform tokens.
    """

    kind: Kind
    tenant: str | UUID | None = None
    user_id: UUID | None = None
    subject: str | None = None
    token_id: str | None = None


@dataclass(frozen=True)
class RevocationRecord:
    """A revocation; `subject` is the user's id where there is a tenant. After `expires_at` nobody needs it any more."""

    id: int
    kind: str
    tenant_id: UUID | None
    subject: str | None
    token_id: str | None
    issued_before: datetime | None
    expires_at: datetime
    created_at: datetime


@dataclass(frozen=True)
class RevocationPage:
    items: list[RevocationRecord]
    next_cursor: str | None


async def revoke(
    databases: Databases,
    target: Target,
    *,
    issued_before: datetime | None = None,
    expires_at: datetime | None = None,
    actor: str,
) -> RevocationRecord:
    """Refuse what `target` says from now on.

    `issued_before` (not of a single token) is now when absent: tokens issued later are good. `expires_at` (of a single
    token) is when it expires; without it the revocation is kept for as long as any token may live. Raises
    `TenantNotFound`, `InvalidInput`.
    """
    async with databases.registry.begin() as session:
        now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
        if target.kind == "token":
            _refuse("issued_before", issued_before)
            _require("expires_at", expires_at, now, now + LONGEST)
            expires_at = expires_at or now + LONGEST
        else:
            _refuse("expires_at", expires_at)
            _require("issued_before", issued_before, now - LONGEST, now + AHEAD)
            issued_before = issued_before or now
            expires_at = issued_before + LONGEST
        row = await _row(session, target)
        row.issued_before, row.expires_at = issued_before, expires_at
        details = {"subject": row.subject, "token_id": row.token_id}
        given = {name: value for name, value in details.items() if value is not None}
        audit.record(session, actor, "token.revoke", row.tenant_id, kind=row.kind, **given)
        await revocations.add(session, row)
        return _record(row)


async def list_revocations(databases: Databases, *, limit: int = 100, cursor: str | None = None) -> RevocationPage:
    """A page, the newest first. Raises `InvalidInput`."""
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise InvalidInput("The cursor is not one that a list of revocations returned.")
    before = int(cursor) if cursor is not None else None
    async with databases.registry() as session:
        rows = await revocations.page(session, before=before, limit=limit + 1)
    items = [_record(row) for row in rows[:limit]]
    return RevocationPage(items, str(items[-1].id) if len(rows) > limit else None)


async def _row(session: AsyncSession, target: Target) -> Revocation:
    row = Revocation(kind=target.kind)
    if target.kind in ("user", "tenant"):
        if target.tenant is None or (target.kind == "user" and target.user_id is None):
            raise InvalidInput("The revocation does not say whose tokens it takes back.")
        row.tenant_id = (await tenants.get(session, target.tenant)).tenant.id
        row.subject = str(target.user_id) if target.kind == "user" else None
    elif target.kind == "subject":
        row.subject = _text("subject", target.subject)
    else:
        row.token_id = _text("token_id", target.token_id)
    return row


def _text(name: str, value: str | None) -> str:
    """Anything else is in no token that is accepted."""
    if value is None or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise InvalidInput(
            f"'{name}' is not a printable text of 1 to {MAX_TEXT} characters.",
            hint="Give the claim 'jti' of the token, never the token." if name == "token_id" else None,
        )
    return value


def _refuse(name: str, value: datetime | None) -> None:
    if value is not None:
        raise InvalidInput(f"'{name}' says nothing about this kind of revocation.")


def _require(name: str, value: datetime | None, earliest: datetime, latest: datetime) -> None:
    if value is None:
        return
    if value.tzinfo is None:
        raise InvalidInput(f"'{name}' has no time zone.", hint="Write 2026-03-01T12:00:00Z.")
    if not earliest <= value <= latest:
        raise InvalidInput(
            f"'{name}' is too early or too late.",
            hint=f"Between {_short(earliest)} and {_short(latest)}.",
        )


def _short(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _record(row: Revocation) -> RevocationRecord:
    return RevocationRecord(
        id=row.id,
        kind=row.kind,
        tenant_id=row.tenant_id,
        subject=row.subject,
        token_id=row.token_id,
        issued_before=row.issued_before,
        expires_at=row.expires_at,
        created_at=row.created_at,
    )
