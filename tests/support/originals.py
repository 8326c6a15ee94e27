"""The databases that an installation begins with, made once a session: a copy costs a tenth of the making."""

from __future__ import annotations

from uuid import UUID, uuid4

from control_plane.isolation.cluster import prepare_cluster
from control_plane.isolation.names import tenants_database
from control_plane.isolation.template_database import ensure_template_database, template_database_name
from control_plane.isolation.tenancy_schema import shipped_versions
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.templates import Template
from tests.support.servers import Server

_CLOSE = 'ALTER DATABASE "{}" WITH IS_TEMPLATE true ALLOW_CONNECTIONS false'


class Originals:
    """Of one server: a tenants' database with nothing but the schema `tenancy`, and template databases."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._tenants: dict[str, str] = {}  # by what `tenancy` is made of: a test may change that
        self._templates: set[str] = set()

    async def prepare(self, databases: Databases, installation_id: UUID) -> str:
        """`prepare_cluster` on the session's server, which is left little to do."""
        await self._server.copy_database(await self._prepared(databases), tenants_database(installation_id))
        return await prepare_cluster(databases, self._server.dsn, installation_id)

    async def template_database(self, databases: Databases, cluster: Cluster, template: Template, version: int) -> None:
        """What the cluster's first tenant with a database of its own would wait for."""
        tenants = await self._prepared(databases)
        own = Cluster(id=uuid4(), name="original", dsn=databases.box.seal(self._server.dsn), database=tenants)
        source = template_database_name(own, template, version)  # which tells one content from another
        if source not in self._templates:
            self._templates.add(await ensure_template_database(databases, own, template, version))
        name = template_database_name(cluster, template, version)
        async with self._server.connection() as connection:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
                await self._server.copy_database(source, name)
                await connection.execute(_CLOSE.format(name))

    async def _prepared(self, databases: Databases) -> str:
        content = " ".join(version.checksum for version in shipped_versions())
        if content not in self._tenants:
            database = await prepare_cluster(databases, self._server.dsn, self._server.new_installation())
            self._tenants[content] = database
        return self._tenants[content]
