"""Tenants as the request path meets them, made with the isolation layer and the registry's tables alone."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

from control_plane.isolation import isolation_of
from control_plane.pools import gate
from control_plane.pools.databases import Databases
from control_plane.pools.placement import Placement
from control_plane.registry.models import Cluster, Home, Tenant
from control_plane.templates import Template, Templates
from tests.support.originals import Originals


@dataclass
class Member:
    """A tenant with its home; `user_id` is one of its users."""

    tenant: Tenant
    home: Home
    user_id: UUID

    @property
    def id(self) -> UUID:
        return self.tenant.id

    @property
    def slug(self) -> str:
        return self.tenant.slug

    @property
    def placement(self) -> Placement:
        return Placement(
            tenant_id=self.tenant.id,
            home_id=self.home.id,
            cluster_id=self.home.cluster_id,
            isolation=self.home.isolation,
            schema_name=self.home.schema_name,
            template=self.home.template,
            pattern_version=self.home.pattern_version,
            epoch=self.tenant.epoch,
            status=self.tenant.status,
            read_at=0.0,
        )

    @property
    def caller(self) -> gate.Caller:
        return gate.Caller(self.tenant.id, self.user_id, self.tenant.epoch, ())


class Members:
    """The tenants of one cluster and installation; with `originals` the first database of a version comes sooner."""

    def __init__(
        self, databases: Databases, cluster: Cluster, installation_id: UUID, originals: Originals | None = None
    ) -> None:
        self.databases = databases
        self.cluster = cluster
        self.installation_id = installation_id
        self.templates = Templates.load(databases.settings.templates)
        self._originals = originals
        self._shared: Home | None = None

    @property
    def template(self) -> Template:
        return self.templates[self.databases.settings.template]

    async def add(self, slug: str, isolation: str = "shared", *, version: int | None = None) -> Member:
        """A new, active tenant; a shared one joins the one shared home."""
        mode = isolation_of(isolation)
        home = self._shared if isolation == "shared" else None
        if home is None:
            home = mode.new_home(self.installation_id, self.cluster, self.template.name, self.databases.box)
        tenant = Tenant(id=uuid4(), slug=slug, name=slug, isolation=isolation, status="active", epoch=1)
        version = version or self.template.latest
        if isolation == "database" and self._originals is not None:
            await self._originals.template_database(self.databases, self.cluster, self.template, version)
        home.pattern_version = await mode.build(self.databases, self.cluster, home, tenant, self.template, version)
        home.ready = True
        async with self.databases.registry.begin() as session:
            await session.merge(home)
            await session.flush()
            tenant.home_id = home.id
            session.add(tenant)
        if isolation == "shared":
            self._shared = home
        member = Member(tenant, home, uuid4())
        await self.set_state(member, "active")
        return member

    async def set_state(self, member: Member, state: str, *, epoch: int | None = None) -> None:
        """Change the tenant's state in its database, and there only."""
        mode = isolation_of(member.home.isolation)
        await mode.set_state(
            self.databases, self.cluster, member.home, member.tenant, state, epoch or member.tenant.epoch
        )

    async def record(self, member: Member, *, status: str | None = None, epoch: int | None = None) -> None:
        """Change what the registry says of the tenant, and only there."""
        member.tenant.status = status or member.tenant.status
        member.tenant.epoch = epoch or member.tenant.epoch
        async with self.databases.registry.begin() as session:
            await session.merge(member.tenant)

    async def drop(self, member: Member) -> None:
        mode = isolation_of(member.home.isolation)
        await mode.drop(self.databases, self.cluster, member.home, member.tenant)
