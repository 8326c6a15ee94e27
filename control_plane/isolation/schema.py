"""Schema isolation: each tenant has its own schema and its own login role in the tenants' database."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from control_plane.isolation.extensions import install_extensions
from control_plane.isolation.home import plan_home
from control_plane.isolation.login import retire_role, role_call, verifier_call
from control_plane.isolation.state import TenantState, home_version
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home, Tenant
from control_plane.registry.secrets import SecretBox
from control_plane.templates import Template


class SchemaIsolation(TenantState):
    def new_home(self, installation_id: UUID, cluster: Cluster, template: str, box: SecretBox) -> Home:
        return plan_home("schema", installation_id, cluster, template, box)

    async def build(
        self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant, template: Template, version: int
    ) -> int:
        async with databases.kept_admin(cluster, home.database) as connection:
            await install_extensions(connection, template)
            try:
                await connection.execute(provisioning_message(databases, home, tenant, template, version))
            except asyncpg.PostgresError as error:
                # An attempt before this one has built it, or is at it.
                present = await home_version(connection, home) if error.sqlstate in ("CP001", "CP002") else None
                if not present:
                    raise
                return present
            return version

    async def drop(self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant) -> None:
        async with databases.admin(cluster, home.database, purpose="drop") as connection:
            await retire_role(connection, home.role_name)
            await connection.execute(
                f"SELECT tenancy.drop_home('{home.id}'); DROP ROLE IF EXISTS \"{home.role_name}\";"
            )


def provisioning_message(databases: Databases, home: Home, tenant: Tenant, template: Template, version: int) -> str:
    """Schema, every version, role and the stamp in one message, and so in one transaction.

    The role comes late: making it a member of the group role locks that one until the end of the transaction, so that
    tenants that are made at the same time would wait for each other.
    """
    settings = databases.settings
    role = role_call(home, databases.box, settings.statement_timeout, ["cp_request", home.database])
    arguments = f"'{tenant.slug}', '{tenant.id}', '{home.id}', '{home.template}', '{home.role_name}'"
    create = f"SELECT tenancy.create_tenant_schema({arguments});"
    script = template.script(0, version)
    return f"{create}\n{verifier_call(home, databases.box)}\n" + script.message(
        home.id, home.schema_name, settings.lock_timeout, before_stamp=role
    )
