"""Where a tenant's data lives: shared tables, a schema of its own, or a database of its own."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from control_plane.isolation.database import DatabaseIsolation
from control_plane.isolation.schema import SchemaIsolation
from control_plane.isolation.shared import SharedIsolation
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home, Tenant
from control_plane.registry.secrets import SecretBox
from control_plane.templates import Template

__all__ = ["Isolation", "isolation_of"]


class Isolation(Protocol):
    """What differs between the modes. Each call is idempotent and may be repeated after a crash at any point."""

    def new_home(self, installation_id: UUID, cluster: Cluster, template: str, box: SecretBox) -> Home:
        """The names and the password of a home to come; nothing is done yet."""

    async def build(
        self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant, template: Template, version: int
    ) -> int:
        """Create what is missing of the home and record the tenant as `provisioning`; the version that it has."""

    async def upgrade(
        self, databases: Databases, cluster: Cluster, home: Home, template: Template, from_version: int, version: int
    ) -> int:
        """Bring a home that nobody uses yet to a later version; the version that it has then."""

    async def set_state(
        self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant, state: str, epoch: int
    ) -> None:
        """Commit the tenant's state where its data lives; requests obey it from then on."""

    async def fence(self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant) -> None:
        """Return once no writing transaction is left that began before the present state."""

    async def drop(self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant) -> None:
        """Remove the tenant and all that only it used; nothing to remove is no error."""


_ISOLATIONS: dict[str, Isolation] = {
    "shared": SharedIsolation(),
    "schema": SchemaIsolation(),
    "database": DatabaseIsolation(),
}


def isolation_of(name: str) -> Isolation:
    return _ISOLATIONS[name]
