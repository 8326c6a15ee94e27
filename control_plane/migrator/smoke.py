"""smoke.sql on a home that somebody uses: as its login role, in a transaction that is undone."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import select

from control_plane.migrator.plan import DueHome
from control_plane.pools import gate
from control_plane.pools.connect import BROKEN, connect
from control_plane.pools.databases import Databases
from control_plane.registry.models import Home
from control_plane.templates import Template
from control_plane.templates.script import quote

_TIMEOUT = 30.0  # seconds

# The tenant of a dedicated home, and as whom to call: where a tenant keeps a list of members, as one of them.
_TENANT = """
SELECT t.id, t.state, t.membership,
       (SELECT m.user_id FROM tenancy.members AS m WHERE m.tenant_id = t.id LIMIT 1) AS member
FROM tenancy.tenants AS t
WHERE t.home_id = $1
"""


async def smoke_home(databases: Databases, template: Template, version: int, home: DueHome) -> str | None:
    """What fails when `version` is called in `home`; None when nothing does, or when nobody may call there now."""
    sql = template.version(version).smoke
    if sql is None:
        return None
    try:
        async with databases.admin(home.place.cluster, home.place.database, purpose="migrate smoke") as admin:
            tenant = await admin.fetchrow(_TENANT, home.home_id)
        if tenant is None or tenant["state"] != "active":
            return None
        if tenant["membership"] == "listed" and tenant["member"] is None:
            return None
        await _call(databases, template, version, home, sql, tenant["id"], tenant["member"] or uuid4())
    except BROKEN as error:
        return str(error)
    return None


async def _call(
    databases: Databases, template: Template, version: int, home: DueHome, sql: str, tenant: UUID, user: UUID
) -> None:
    async with databases.registry() as session:
        role, password = (
            await session.execute(select(Home.role_name, Home.password).where(Home.id == home.home_id))
        ).one()
    connection: asyncpg.Connection = await connect(
        databases.box.open(home.place.cluster.dsn),
        application_name="control-plane migrate smoke",
        database=home.place.database,
        user=role,
        password=databases.box.open(password),
        server_settings={"jit": "off"},
    )
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.fetchval(gate.BIND, tenant, user, None, [], False)
        api = quote(f"{home.schema_name}__api_v{template.default_api(version)}")
        await connection.execute(
            f"SET LOCAL search_path = {api}, {quote(home.schema_name)}, extensions, pg_temp; SET LOCAL timezone = 'UTC'"
        )
        await connection.execute(sql, timeout=_TIMEOUT)
        await transaction.rollback()
    finally:
        await connection.close()
