"""Do the projections of tenants still equal their definitions? And, if wanted, their repair.

Functions keep a projection in step; this finds what went past them. Chunk by chunk, each in a transaction of its own,
so that no lock is held for long; what is committed in between is compared as it then is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import asyncpg
from sqlalchemy import select, tuple_

from control_plane.errors import ClusterUnavailable
from control_plane.pools.databases import Databases
from control_plane.registry import tenants
from control_plane.registry.models import Cluster, Home, Tenant
from control_plane.registry.tenants import Placed
from control_plane.templates import Template, Templates
from control_plane.templates.manifest import Projection
from control_plane.templates.script import quote

_SERVED = ("active", "suspended")
_GONE = {"TN404", "TN503"}  # the tenant left, or is on its way, since the registry was read
_PAGE = 500  # tenants

_DRIFT = """
SELECT last_key, compared, drifted FROM tenancy.projection_drift($1::text::regclass, $2::text::regclass, $3::uuid)"""
_RESYNC = """
SELECT last_key, compared, repaired
FROM tenancy.resync_projection($1::text::regclass, $2::text::regclass, $3::text::regclass, $4::uuid, 1)"""


@dataclass(frozen=True)
class Drift:
    """One projection of one tenant, in keys. `problem` says why it could not be compared."""

    tenant: str
    projection: str
    compared: int = 0
    drifted: int = 0
    repaired: int = 0
    problem: str | None = None

    @property
    def left(self) -> bool:
        """Whether the projection may still differ from its definition."""
        return self.problem is not None or self.drifted > self.repaired


Progress = Callable[[str, str, int], None]  # tenant, projection, keys compared so far


async def check_drift(
    databases: Databases,
    templates: Templates,
    refs: Sequence[str] = (),
    *,
    resync: bool = False,
    progress: Progress | None = None,
) -> AsyncIterator[Drift]:
    """One result per projection of the tenants `refs` (slugs or ids; none = of all), as their templates declare them.

    A tenant whose cluster cannot be reached is a result with a problem. Raises `TenantNotFound`.
    """
    async for placed in _named(databases, refs) if refs else _all(databases):
        template = templates[placed.home.template]
        for name, projection in _projections(template, placed.home.pattern_version):
            with suppress(_Left):
                yield await _compare(databases, placed, name, projection, resync, progress)


class _Left(Exception):
    """The tenant is no longer where the registry said."""


async def _compare(
    databases: Databases, placed: Placed, name: str, projection: Projection, resync: bool, progress: Progress | None
) -> Drift:
    slug, schema = placed.tenant.slug, quote(placed.home.schema_name)
    relations = [f"{schema}.{quote(each)}" for each in (name, projection.definition)]
    if resync:
        relations.append(f"{schema}.{quote(projection.source)}")
    compared = differing = 0
    after: UUID | None = None
    try:
        async with databases.kept_admin(placed.cluster, placed.home.database) as connection:
            while True:
                async with connection.transaction():
                    await connection.execute("SELECT tenancy.set_job_context($1)", placed.tenant.id)
                    row = await connection.fetchrow(_RESYNC if resync else _DRIFT, *relations, after)
                assert row is not None
                after, compared, differing = row[0], compared + row[1], differing + len(row[2])
                if progress is not None:
                    progress(slug, name, compared)
                if after is None:
                    return Drift(slug, name, compared, differing, differing if resync else 0)
    except ClusterUnavailable as error:
        return Drift(slug, name, problem=f"The cluster cannot be reached ({error.details}).")
    except asyncpg.PostgresError as error:
        if error.sqlstate in _GONE:
            raise _Left from error
        return Drift(slug, name, compared, differing, problem=str(error))


async def _named(databases: Databases, refs: Sequence[str]) -> AsyncIterator[Placed]:
    async with databases.registry() as session:
        found = [await tenants.get(session, ref) for ref in refs]
    for placed in found:
        yield placed


async def _all(databases: Databases) -> AsyncIterator[Placed]:
    """In the order of slugs; a page at a time, since the registry's connection is not held while tenants are read."""
    after: tuple[str, UUID] | None = None
    while True:
        query = (
            select(Tenant, Home, Cluster)
            .join(Home, Home.id == Tenant.home_id)
            .join(Cluster, Cluster.id == Home.cluster_id)
            .where(Tenant.status.in_(_SERVED))
            .order_by(Tenant.slug, Tenant.id)
            .limit(_PAGE)
        )
        if after is not None:
            query = query.where(tuple_(Tenant.slug, Tenant.id) > after)
        async with databases.registry() as session:
            page = [Placed(*row) for row in await session.execute(query)]
        for placed in page:
            yield placed
        if len(page) < _PAGE:
            return
        after = page[-1].tenant.slug, page[-1].tenant.id


def _projections(template: Template, pattern_version: int) -> list[tuple[str, Projection]]:
    declared = sorted(template.manifest.projections.items())
    return [(name, projection) for name, projection in declared if projection.since <= pattern_version]
