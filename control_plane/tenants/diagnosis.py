"""What `cp doctor` looks for: unsafe postures, half-made tenants, and whatever only one side knows of.

The registry and the servers are compared in both directions. The servers are read first: work in progress is written
to the registry before it begins, so what appears meanwhile is no orphan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import ClusterUnavailable
from control_plane.isolation.cluster import check_cluster
from control_plane.isolation.extensions import ExtensionFault, extension_faults
from control_plane.isolation.names import installation_prefix
from control_plane.pools.databases import Databases
from control_plane.registry import clusters
from control_plane.registry.installation import installation_id
from control_plane.registry.models import Cluster, Home, Operation, Tenant
from control_plane.registry.operations import OPEN
from control_plane.settings import shipped
from control_plane.templates import Templates

_SERVER = (shipped("sql") / "doctor" / "server.sql").read_text()
_CONTENTS = (shipped("sql") / "doctor" / "contents.sql").read_text()

STALLED = 60  # seconds without a sign of life, after which nobody works on an operation
_NEVER_SERVED = ("provisioning", "deleting", "failed")


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong; `cluster` is None for the registry itself."""

    cluster: str | None
    code: str
    object: str
    problem: str
    fix: str
    fatal: bool = True


@dataclass
class _Server:
    """What one cluster holds. `homes` and `tenants` by id, with the version and the state that they have there."""

    roles: set[str] = field(default_factory=set)
    databases: set[str] = field(default_factory=set)
    schemas: set[str] = field(default_factory=set)
    homes: dict[UUID, int] = field(default_factory=dict)
    home_schemas: set[str] = field(default_factory=set)
    tenants: dict[UUID, tuple[str, str]] = field(default_factory=dict)  # slug, state
    extensions: set[ExtensionFault] = field(default_factory=set)


@dataclass(frozen=True)
class _Known:
    """What the registry knows; `busy` are the homes of tenants with an open operation."""

    homes: Sequence[Home]
    tenants: Sequence[Tenant]
    busy: frozenset[UUID]


async def diagnose(databases: Databases) -> list[Trouble]:
    """Everything that is wrong, cluster by cluster; empty = nothing."""
    async with databases.registry() as session:
        prefix = installation_prefix(await installation_id(session))
        found = await clusters.all_by_name(session)
    templates = Templates.load(databases.settings.templates)
    extensions = {name for template in templates.values() for name in template.manifest.extensions}
    troubles = []
    for cluster in found:
        try:
            findings = await check_cluster(databases, cluster)
            troubles += [Trouble(cluster.name, f.code, f.object, f.problem, f.fix, f.fatal) for f in findings]
            server = await _look(databases, cluster, prefix, extensions)
        except ClusterUnavailable as error:
            problem = f"cannot be reached ({error.details})"
            troubles.append(Trouble(cluster.name, "unreachable", cluster.name, problem, "start it, or repair its DSN"))
            continue
        async with databases.registry() as session:
            known = await _known(session, cluster)
        troubles += [
            Trouble(cluster.name, "extension", fault.extension, fault.problem, fault.fix)
            for fault in sorted(server.extensions, key=lambda fault: (fault.extension, fault.problem))
        ]
        troubles += _orphans(cluster.name, server, known)
        troubles += _missing(cluster.name, server, known)
    async with databases.registry() as session:
        troubles += await _half_made(session)
    return troubles


async def _look(databases: Databases, cluster: Cluster, prefix: str, extensions: set[str]) -> _Server:
    server = _Server()
    async with databases.admin(cluster, purpose="doctor") as connection:
        for row in await connection.fetch(_SERVER, prefix):
            (server.roles if row["kind"] == "role" else server.databases).add(row["name"])
        _read_contents(server, await connection.fetch(_CONTENTS))
        server.extensions.update(await extension_faults(connection, extensions))
    for database in sorted(server.databases):
        try:
            async with databases.admin(cluster, database, purpose="doctor") as connection:
                _read_contents(server, await connection.fetch(_CONTENTS), own_database=True)
                server.extensions.update(await extension_faults(connection, extensions))
        except asyncpg.PostgresError:
            continue  # half-made or just dropped: its name alone tells what it is
    return server


def _read_contents(server: _Server, rows: Sequence[asyncpg.Record], *, own_database: bool = False) -> None:
    for row in rows:
        if row["kind"] == "home":
            server.homes[row["id"]] = row["version"]
            server.home_schemas.add(row["name"])
        elif row["kind"] == "tenant":
            server.tenants[row["id"]] = (row["name"], row["state"])
        elif not own_database:
            server.schemas.add(row["name"].partition("__")[0])


async def _known(session: AsyncSession, cluster: Cluster) -> _Known:
    homes = (await session.scalars(select(Home).where(Home.cluster_id == cluster.id))).all()
    tenants = (await session.scalars(select(Tenant).join(Home).where(Home.cluster_id == cluster.id))).all()
    open_on = select(Operation.tenant_id).where(Operation.status.in_(OPEN))
    busy = await session.scalars(select(Tenant.home_id).where(Tenant.id.in_(open_on)))
    return _Known(homes, tenants, frozenset(home for home in busy if home is not None))


def _orphans(cluster: str, server: _Server, known: _Known) -> Iterator[Trouble]:
    """What the server holds and the registry does not know."""
    left_behind = {
        "role": server.roles - {home.role_name for home in known.homes},
        "database": server.databases - {home.database for home in known.homes},
        "schema": server.schemas - {home.schema_name for home in known.homes},
    }
    drop = {"role": 'DROP ROLE "{}"', "database": 'DROP DATABASE "{}"', "schema": 'DROP SCHEMA "{}" CASCADE'}
    for kind, names in left_behind.items():
        for name in sorted(names):
            fix = f"make sure that nobody misses it, then {drop[kind].format(name)}"
            yield Trouble(cluster, f"orphan_{kind}", name, f"is a {kind} that the registry does not know", fix)
    for home_id in sorted(server.homes.keys() - {home.id for home in known.homes}, key=str):
        fix = f"SELECT tenancy.drop_home('{home_id}')"
        yield Trouble(cluster, "orphan_home", str(home_id), "is a home that the registry does not know", fix)
    for tenant_id in sorted(server.tenants.keys() - {tenant.id for tenant in known.tenants}, key=str):
        slug, state = server.tenants[tenant_id]
        problem = f"is a tenant ({slug}, {state}) that the registry does not know"
        yield Trouble(cluster, "orphan_tenant", str(tenant_id), problem, "restore the registry, or delete its rows")


def _missing(cluster: str, server: _Server, known: _Known) -> Iterator[Trouble]:
    """What the registry promises and the server does not hold."""
    for home in known.homes:
        if not home.ready or home.id in known.busy:
            continue
        if home.id not in server.homes:
            problem = f"is a home in {home.database} that is not there"
            yield Trouble(cluster, "missing_home", home.schema_name, problem, "restore it from a backup")
            continue
        if home.role_name not in server.roles:
            yield Trouble(cluster, "missing_role", home.role_name, "does not exist", "restore it from a backup")
        if (version := server.homes[home.id]) != home.pattern_version:
            problem = f"is at version {version}; the registry says {home.pattern_version}"
            yield Trouble(cluster, "version_copy", home.schema_name, problem, "run: cp migrate-all", fatal=False)
    for tenant in known.tenants:
        if tenant.status not in ("active", "suspended") or tenant.home_id in known.busy:
            continue
        _, state = server.tenants.get(tenant.id, (None, "absent"))
        if state != tenant.status:
            problem = f"is {tenant.status} in the registry and {state} in its database"
            fix = f"run: cp tenant {'resume' if tenant.status == 'active' else 'suspend'} {tenant.slug}"
            yield Trouble(cluster, "state_differs", tenant.slug, problem, fix)


async def _half_made(session: AsyncSession) -> list[Trouble]:
    """Tenants between two states that nobody works on."""
    worked_on = select(Operation.tenant_id).where(
        Operation.status.in_(OPEN), Operation.updated_at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, STALLED)
    )
    query = select(Tenant).where(Tenant.status.in_(_NEVER_SERVED), Tenant.id.not_in(worked_on)).order_by(Tenant.slug)
    return [
        Trouble(
            None,
            "half_made",
            tenant.slug,
            f"is {tenant.status} and nobody works on it",
            "start a worker (cp worker); it goes on where the last one stopped",
        )
        for tenant in await session.scalars(query)
    ]
