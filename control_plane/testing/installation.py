"""A throw-away installation of the control plane, with two tenants in each isolation mode."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg

from control_plane.errors import ControlPlaneError
from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_tenant_token
from control_plane.isolation.cluster import drop_database
from control_plane.operations.engine import NewTenant
from control_plane.pools.connect import connect
from control_plane.registry import tenants
from control_plane.service import ControlPlane, initialise, open_control_plane
from control_plane.settings import Settings
from control_plane.templates.script import quote
from control_plane.testing.servers import dsn_with

ACTOR = "tests"
PATIENCE = 60.0  # seconds for a tenant, on a slow machine
NAMES = ("alpha", "bravo")

_TABLES = """
SELECT c.relname AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname"""
_DIGEST = """
SELECT count(*) || ' ' || md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text), ''))
FROM {table} AS t WHERE tenant_id = $1"""
_DATABASES = "SELECT datname FROM pg_database WHERE starts_with(datname, $1) ORDER BY datname"
_ROLES = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1) ORDER BY rolname"


@dataclass(frozen=True)
class Onboarded:
    """A tenant of the installation. `user_id` is the user that its `token` names."""

    slug: str
    id: UUID
    isolation: str
    user_id: UUID
    token: str


class Installation:
    """`settings` are those of an application that joins it; `plane` has the control plane's verbs."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.settings = plane.settings
        self.tenants: list[Onboarded] = []

    async def add_tenant(self, slug: str, isolation: str, roles: Iterable[str] = ()) -> Onboarded:
        """Onboard a tenant, as `POST /tenants` does; `roles` are those of its token."""
        new = NewTenant(slug=slug, name=slug.title(), isolation=isolation)
        record, _ = await self.plane.operations.create_tenant(new, actor=ACTOR, wait=PATIENCE)
        if record.status != "active":
            raise ControlPlaneError(f"The tenant {slug} is still {record.status} after {PATIENCE:.0f} s.")
        user_id = uuid4()
        token = mint_tenant_token(development_issuer(self.settings), record.id, user_id, roles, ttl=86_400)
        self.tenants.append(Onboarded(slug, record.id, isolation, user_id, token))
        return self.tenants[-1]

    async def rows(self, tenant_id: UUID) -> dict[str, str]:
        """What a tenant has, whoever may read it: per table the number of its rows and a digest of them."""
        databases = self.plane.databases
        async with databases.registry() as session:
            _, home, cluster = await tenants.get(session, tenant_id)
        async with (
            databases.admin(cluster, home.database, purpose="testing") as connection,
            connection.transaction(readonly=True),
        ):
            await connection.execute("SET LOCAL ROLE cp_owner")
            names = [row["name"] for row in await connection.fetch(_TABLES, home.schema_name)]
            tables = {name: f"{quote(home.schema_name)}.{quote(name)}" for name in names}
            return {
                name: await connection.fetchval(_DIGEST.format(table=table), tenant_id)
                for name, table in tables.items()
            }


@asynccontextmanager
async def open_installation(
    admin_dsn: str, *, templates: Path | None, template: str | None, modes: Iterable[str], roles: Iterable[str] = ()
) -> AsyncIterator[Installation]:
    """An installation on the server of `admin_dsn`, which is left without it: databases and roles are dropped.

    Raises what `cp init` does; a template of the application's own is held against the rules of templates.
    """
    registry = f"cp_testing_{secrets.token_hex(6)}"
    given = {"templates": templates, "template": template}
    settings = Settings.model_validate(
        {
            "database_url": dsn_with(admin_dsn, database=registry),
            "secret_key": secrets.token_urlsafe(32),
            "signing_key": secrets.token_urlsafe(32),
            **{name: value for name, value in given.items() if value is not None},
        }
    )
    await _on_server(admin_dsn, f'CREATE DATABASE "{registry}"', f'REVOKE ALL ON DATABASE "{registry}" FROM PUBLIC')
    installation_id = None
    try:
        async with open_control_plane(settings, upgrade=True) as plane:
            installation_id = plane.installation_id
            await initialise(plane, actor=ACTOR)
            installation = Installation(plane)
            for mode in modes:
                for name in NAMES:
                    await installation.add_tenant(f"{name}-{mode}", mode, tuple(roles))
            yield installation
    finally:
        await _remove(admin_dsn, registry, installation_id)


def environment(settings: Settings) -> dict[str, str]:
    """The variables from which `Settings()` reads the same."""
    assert settings.database_url is not None
    assert settings.secret_key is not None
    assert settings.signing_key is not None
    return {
        "CP_DATABASE_URL": settings.database_url.get_secret_value(),
        "CP_SECRET_KEY": settings.secret_key.get_secret_value(),
        "CP_SIGNING_KEY": settings.signing_key.get_secret_value(),
        "CP_TEMPLATES": str(settings.templates),
        "CP_TEMPLATE": settings.template,
    }


async def _on_server(dsn: str, *statements: str) -> None:
    connection = await connect(dsn, application_name="control-plane testing")
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _remove(dsn: str, registry: str, installation_id: UUID | None) -> None:
    connection = await connect(dsn, application_name="control-plane testing")
    try:
        await drop_database(connection, registry)
        if installation_id is not None:
            await drop_installation(connection, installation_id)
    finally:
        await connection.close()


async def drop_installation(connection: asyncpg.Connection, *installation_ids: UUID) -> None:
    """Drop the databases and roles that installations made on a server; the group roles of all of them stay."""
    roles: list[str] = []
    for installation_id in installation_ids:
        prefix = f"cp_{installation_id.hex[:8]}_"
        own = [row["rolname"] for row in await connection.fetch(_ROLES, prefix)]
        for row in await connection.fetch(_DATABASES, prefix):
            await drop_database(connection, row["datname"])
        for role in own:
            # The login role of a home carries the home's name; some homes are a database of that name.
            if role.startswith(f"{prefix}t_"):
                await drop_database(connection, role.removeprefix(prefix))
        roles += own
    for role in roles:  # last, because a copy of a database has the roles of its source
        await connection.execute(f'DROP ROLE "{role}"')
