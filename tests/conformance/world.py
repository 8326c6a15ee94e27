"""Two tenants of one isolation mode, with rows, and the ways in that an attacker or an operator has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import inspect

from control_plane.isolation import isolation_of
from control_plane.isolation.cluster import prepare_cluster
from control_plane.isolation.names import installation_prefix, tenants_database
from control_plane.pools.connect import connect
from control_plane.pools.databases import Databases
from control_plane.registry.models import Base, Cluster, Home, Tenant
from control_plane.templates import Template
from tests.support.servers import Server

_Row = TypeVar("_Row", bound=Base)
NOBODY = UUID("00000000-0000-0000-0000-00000000000f")


@dataclass
class Member:
    """One tenant as the tests see it."""

    tenant: Tenant
    home: Home
    password: str
    user_id: UUID = field(default_factory=uuid4)
    projects: list[UUID] = field(default_factory=list)
    users: list[UUID] = field(default_factory=list)

    @property
    def id(self) -> UUID:
        return self.tenant.id

    @property
    def schema(self) -> str:
        return self.home.schema_name


@dataclass
class World:
    mode: str
    databases: Databases
    cluster: Cluster
    template: Template
    dsn: str
    installation_id: UUID
    a: Member
    b: Member

    @asynccontextmanager
    async def request(self, member: Member, at: Member | None = None) -> AsyncIterator[asyncpg.Connection]:
        """A connection as the login role of the member's home, to its database or to another's."""
        connection = await connect(
            self.dsn,
            application_name="test request",
            database=(at or member).home.database,
            user=member.home.role_name,
            password=member.password,
        )
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def within(self, member: Member, *, read_only: bool = False) -> AsyncIterator[asyncpg.Connection]:
        """A transaction in the member's context; rolled back when the block raises."""
        async with self.request(member) as connection, connection.transaction():
            await bind(connection, member, read_only=read_only)
            yield connection

    @asynccontextmanager
    async def admin(self, member: Member) -> AsyncIterator[asyncpg.Connection]:
        connection = await connect(self.dsn, application_name="test admin", database=member.home.database)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def owner(self, member: Member) -> AsyncIterator[asyncpg.Connection]:
        """A connection that works as cp_owner, with the home first on its path."""
        async with self.admin(member) as connection:
            await connection.execute(f'SET ROLE cp_owner; SET search_path = "{member.schema}", extensions, pg_temp')
            yield connection

    async def set_state(self, member: Member, state: str) -> None:
        member.tenant.epoch += 1
        await isolation_of(self.mode).set_state(
            self.databases, self.cluster, member.home, member.tenant, state, member.tenant.epoch
        )


async def bind(
    connection: asyncpg.Connection, member: Member, *, read_only: bool = False, epoch: int | None = None
) -> None:
    await connection.execute(
        "SELECT tenancy.set_tenant_context($1, $2, $3, $4)", member.id, member.user_id, epoch, read_only
    )


async def build_world(
    databases: Databases, cluster: Cluster, dsn: str, installation_id: UUID, template: Template, mode: str, version: int
) -> World:
    """A with 3 projects and 2 users, B with 5 and 2, both active at `version`."""
    isolation = isolation_of(mode)
    members: list[Member] = []
    shared_home: Home | None = None
    for slug in ("acme", "beta"):
        home = shared_home or isolation.new_home(installation_id, cluster, template.name, databases.box)
        if mode == "shared":
            shared_home = home
        tenant = Tenant(id=uuid4(), slug=slug, name=slug.title(), isolation=mode, epoch=1)
        await isolation.build(databases, cluster, home, tenant, template, version)
        await isolation.set_state(databases, cluster, home, tenant, "active", 1)
        members.append(Member(tenant, home, databases.box.open(home.password)))
    world = World(mode, databases, cluster, template, dsn, installation_id, *members)
    for member, projects in ((world.a, 3), (world.b, 5)):
        async with world.within(member) as connection:
            for n in range(2):
                member.users.append(
                    await connection.fetchval(
                        "INSERT INTO tb_user (email, name) VALUES ($1, $2) RETURNING id",
                        f"user{n}@{member.tenant.slug}.example",
                        f"{member.tenant.slug}-secret-user-{n}",
                    )
                )
            for n in range(projects):
                project = await connection.fetchval(
                    "INSERT INTO tb_project (name, owner_id) VALUES ($1, $2) RETURNING id",
                    f"{member.tenant.slug}-secret-{n}",
                    member.users[0],
                )
                await connection.execute(
                    "INSERT INTO tb_project_member (project_id, user_id) VALUES ($1, $2)", project, member.users[0]
                )
                member.projects.append(project)
    return world


async def copy_world(original: World, server: Server) -> World:
    """The same tenants with the same roles, in databases of their own: a copy costs a tenth of what building does.

    Nobody is connected to the databases of `original`.
    """
    installation_id = server.new_installation()
    prefix = installation_prefix(installation_id)
    copies = {original.cluster.database: tenants_database(installation_id)}
    for home in (original.a.home, original.b.home):
        copies.setdefault(home.database, f"{prefix}_{home.database}")
    for source, name in copies.items():
        await server.copy_database(source, name)
    async with server.connection() as connection:
        for home in (original.a.home, original.b.home):
            await connection.execute(f'GRANT CONNECT ON DATABASE "{copies[home.database]}" TO "{home.role_name}"')
    await prepare_cluster(original.databases, server.dsn, installation_id)
    cluster = _copied(original.cluster, id=uuid4(), database=copies[original.cluster.database])
    members = []
    for member in (original.a, original.b):
        home = _copied(member.home, cluster_id=cluster.id, database=copies[member.home.database])
        tenant = _copied(member.tenant, home_id=member.tenant.home_id)
        members.append(replace(member, tenant=tenant, home=home, projects=[*member.projects], users=[*member.users]))
    if original.a.home is original.b.home:
        members[1].home = members[0].home
    a, b = members
    return replace(original, cluster=cluster, installation_id=installation_id, a=a, b=b)


def _copied(row: _Row, **changes: object) -> _Row:
    """A row that is in no session, with some columns changed."""
    columns = {column.key: getattr(row, column.key) for column in inspect(type(row)).column_attrs}
    return type(row)(**{**columns, **changes})
