"""Who is let in to a tenant: anybody whom a verified token names, or only those on the tenant's list.

The list stands in the database that holds the tenant's data and is asked by `set_tenant_context`, so a change of it
takes effect with the next transaction, whatever tokens are still valid.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import asyncpg

from control_plane.errors import InvalidTransition, MemberNotFound
from control_plane.pools.databases import Databases
from control_plane.registry import audit, tenants
from control_plane.registry.models import Tenant
from control_plane.tenants import lifecycle

Policy = Literal["token", "listed"]

_MEMBERS = "SELECT user_id, roles FROM tenancy.members WHERE tenant_id = $1 ORDER BY user_id"
_POLICY = "SELECT membership FROM tenancy.tenants WHERE id = $1"


@dataclass(frozen=True)
class Member:
    """A user with the roles that he has in this tenant; they take the place of those in his token."""

    user_id: UUID
    roles: list[str]


@dataclass(frozen=True)
class Membership:
    """`policy` 'token': the token's word is taken, and `members` is not asked. 'listed': nobody else is let in."""

    policy: Policy
    members: list[Member]


async def get_membership(databases: Databases, ref: str | UUID) -> Membership:
    """Raises `TenantNotFound`, `ClusterUnavailable`."""
    async with databases.registry() as session:
        tenant, home, cluster = await tenants.get(session, ref)
    async with databases.kept_admin(cluster, home.database) as connection:
        return await _read(connection, tenant)


async def set_policy(databases: Databases, ref: str | UUID, policy: Policy, *, actor: str) -> Membership:
    """Raises `TenantNotFound`, `InvalidTransition`, `ClusterUnavailable`."""
    async with _changed(databases, ref, actor, "tenant.membership", policy=policy) as (connection, tenant):
        await connection.execute("SELECT tenancy.put_membership($1, $2)", tenant.id, policy)
        return await _read(connection, tenant)


async def put_member(
    databases: Databases, ref: str | UUID, user_id: UUID, roles: Sequence[str], *, actor: str
) -> Member:
    """Add a member, or replace the roles of one. Raises `TenantNotFound`, `InvalidTransition`, `ClusterUnavailable`."""
    member = Member(user_id, sorted(set(roles)))
    details = {"user_id": str(user_id), "roles": member.roles}
    async with _changed(databases, ref, actor, "tenant.member_put", **details) as (connection, tenant):
        await connection.execute("SELECT tenancy.put_member($1, $2, $3)", tenant.id, user_id, member.roles)
    return member


async def remove_member(databases: Databases, ref: str | UUID, user_id: UUID, *, actor: str) -> None:
    """Raises `MemberNotFound`, `TenantNotFound`, `InvalidTransition`, `ClusterUnavailable`."""
    async with _changed(databases, ref, actor, "tenant.member_remove", user_id=str(user_id)) as (connection, tenant):
        if not await connection.fetchval("SELECT tenancy.remove_member($1, $2)", tenant.id, user_id):
            raise MemberNotFound


@asynccontextmanager
async def _changed(
    databases: Databases, ref: str | UUID, actor: str, action: str, **details: object
) -> AsyncIterator[tuple[asyncpg.Connection, Tenant]]:
    """The tenant's database, with the registry's row locked; what was done there is audited with it.

    The database comes first: a crash before the registry's commit leaves a change without its audit event, which
    asking again repeats, and never an event of something that did not happen.
    """
    async with databases.registry.begin() as session:
        tenant, home, cluster = await tenants.get(session, ref, lock=True)
        lifecycle.require(tenant.status, "update")
        async with databases.kept_admin(cluster, home.database) as connection:
            try:
                yield connection, tenant
            except asyncpg.PostgresError as error:
                if error.sqlstate != "TN404":
                    raise
                raise InvalidTransition("The tenant is not there yet.", hint="Try again once it is active.") from error
        audit.record(session, actor, action, tenant.id, **details)


async def _read(connection: asyncpg.Connection, tenant: Tenant) -> Membership:
    policy: Policy = await connection.fetchval(_POLICY, tenant.id) or "token"
    rows = await connection.fetch(_MEMBERS, tenant.id)
    return Membership(policy, [Member(row["user_id"], row["roles"]) for row in rows])
