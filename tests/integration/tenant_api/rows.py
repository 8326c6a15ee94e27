"""Rows that a test puts into a tenant's tables at once, and reads of them with a principal."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx

from tests.support.members import Member, Members
from tests.support.tenant_calls import TenantCalls, principal

PAGE = "application/vnd.control-plane.page+json"
LINES = "application/x-ndjson"
OBJECT = "application/vnd.pgrst.object+json"

_PUT = """
INSERT INTO "{schema}".tb_project (tenant_id, id, name, created_at)
SELECT '{tenant}', ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'group ' || (n - 1) / 3,
       timestamptz '2026-03-01Z' + n * interval '1 microsecond'
FROM generate_series({first}, {last}) AS n
"""


async def execute(members: Members, member: Member, text: str) -> None:
    """As the owner of the home's tables."""
    async with members.databases.admin(members.cluster, member.home.database) as admin, admin.transaction():
        await admin.execute("SET LOCAL ROLE cp_owner")
        await admin.execute(text)


async def put_projects(members: Members, member: Member, last: int, first: int = 1) -> None:
    """Projects whose ids are numbers, in groups of three with one name each."""
    text = _PUT.format(schema=member.home.schema_name, tenant=member.id, first=first, last=last)
    await execute(members, member, text)


async def take_projects(members: Members, member: Member, condition: str) -> None:
    text = f"DELETE FROM \"{member.home.schema_name}\".tb_project WHERE tenant_id = '{member.id}' AND ({condition})"
    await execute(members, member, text)


def numbered(number: int) -> str:
    return str(UUID(f"00000000-0000-0000-0000-{number:012}"))


def numbers(documents: list[dict[str, Any]]) -> list[int]:
    return [int(document["id"].rpartition("-")[2]) for document in documents]


class Reader:
    """One user of a tenant, and what she asks for."""

    def __init__(self, calls: TenantCalls, member: Member, *roles: str, user_id: UUID | None = None) -> None:
        self.calls = calls
        self.caller = principal(member, user_id or member.user_id, *roles)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """`path` below /api, or a whole address."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.calls.get(self.caller, path if "/api/" in path else f"/api/{path}", headers=headers)

    async def head(self, path: str, **headers: str) -> httpx.Response:
        return await self.calls._call(self.caller, "HEAD", f"/api/{path}", headers=headers)
