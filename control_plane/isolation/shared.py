"""Shared isolation: common tables, and row-level security between the tenants in them."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from control_plane.isolation.extensions import install_extensions
from control_plane.isolation.home import plan_home
from control_plane.isolation.login import role_call, verifier_call
from control_plane.isolation.state import TenantState, home_version, put_tenant
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home, Tenant
from control_plane.registry.secrets import SecretBox
from control_plane.templates import Template

_BATCH = 10_000  # rows


class SharedIsolation(TenantState):
    def new_home(self, installation_id: UUID, cluster: Cluster, template: str, box: SecretBox) -> Home:
        return plan_home("shared", installation_id, cluster, template, box)

    async def build(
        self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant, template: Template, version: int
    ) -> int:
        async with databases.kept_admin(cluster, home.database) as connection:
            present = await home_version(connection, home)
            if present is None:
                present = await self._build_home(connection, databases, home, template, version)
            await put_tenant(connection, home, tenant, "provisioning", tenant.epoch)
            return present

    async def drop(self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant) -> None:
        """The home stays: it is the cluster's, not the tenant's."""
        async with databases.admin(cluster, home.database, purpose="drop") as connection:
            # In transactions of bounded size: the others in these tables need their vacuum and their locks.
            while await connection.fetchval("SELECT tenancy.erase_rows($1, $2)", tenant.id, _BATCH):
                pass
            await connection.execute("SELECT tenancy.erase_tenant($1)", tenant.id)

    @staticmethod
    async def _build_home(
        connection: asyncpg.Connection, databases: Databases, home: Home, template: Template, version: int
    ) -> int:
        settings = databases.settings
        await install_extensions(connection, template)
        role = role_call(home, databases.box, settings.statement_timeout, ["cp_request", home.database])
        register = (
            f"SELECT tenancy.register_home('{home.id}', 'shared', '{home.template}', "
            f"request_role => '{home.role_name}');"
        )
        script = template.script(0, version).message(home.id, home.schema_name, settings.lock_timeout)
        try:
            # Two first tenants at once: registering takes the home's lock, so the second finds the work done.
            await connection.execute(f"{register}\n{role}\n{verifier_call(home, databases.box)}\n{script}")
        except asyncpg.PostgresError as error:
            if error.sqlstate != "CP001":
                raise
        found = await home_version(connection, home)
        return found or version
