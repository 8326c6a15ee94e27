"""Database isolation: each tenant has its own database, a copy of a template database."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from control_plane.isolation.cluster import create_database, drop_database
from control_plane.isolation.home import plan_home
from control_plane.isolation.login import retire_role, role_call, verifier_call
from control_plane.isolation.state import TenantState, home_version
from control_plane.isolation.template_database import ensure_template_database, template_home_schema
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home, Tenant
from control_plane.registry.secrets import SecretBox
from control_plane.templates import Template


class DatabaseIsolation(TenantState):
    def new_home(self, installation_id: UUID, cluster: Cluster, template: str, box: SecretBox) -> Home:
        # A copy keeps the names of its source.
        schema = template_home_schema(template)
        return plan_home("database", installation_id, cluster, template, box, copied_schema=schema)

    async def build(
        self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant, template: Template, version: int
    ) -> int:
        async with databases.kept_admin(cluster, cluster.database) as connection:
            exists = await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", home.database)
            source = None if exists else await ensure_template_database(databases, cluster, template, version)
            await create_database(connection, home.database, template=source or "template0")
            await connection.execute(
                role_call(home, databases.box, databases.settings.statement_timeout, ["cp_request"])
                + f'GRANT CONNECT ON DATABASE "{home.database}" TO "{home.role_name}";'
            )
        async with databases.admin(cluster, home.database, purpose="provision") as connection:
            await connection.execute(
                "SELECT tenancy.claim_home($1, $2, $3, $4)", home.id, tenant.id, tenant.slug, home.role_name
            )
            await connection.execute(verifier_call(home, databases.box))
            return await home_version(connection, home) or version

    async def drop(self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant) -> None:
        async with databases.admin(cluster, purpose="drop") as connection:
            await retire_role(connection, home.role_name)
            await drop_database(connection, home.database)
            await connection.execute(f'DROP ROLE IF EXISTS "{home.role_name}"')

    async def set_state(
        self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant, state: str, epoch: int
    ) -> None:
        try:
            await super().set_state(databases, cluster, home, tenant, state, epoch)
        except asyncpg.InvalidCatalogNameError:
            if state != "deleting":  # a deletion that is resumed after the drop
                raise

    async def fence(self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant) -> None:
        try:
            await super().fence(databases, cluster, home, tenant)
        except asyncpg.InvalidCatalogNameError:
            return
