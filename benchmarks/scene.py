"""The tenants of the request path's benchmark, their rows and their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import select, text

from benchmarks.rivals import Rival
from benchmarks.stage import dsn_with, onboard
from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_tenant_token
from control_plane.registry.models import Cluster, Home, Tenant
from control_plane.service import ControlPlane
from control_plane.settings import Settings

PATH = "/api/v1/users"

# As cp_owner, whose policy sees all tenants. Whole seconds: then every serialiser writes the same instant.
_ROWS = """
SET ROLE cp_owner;
INSERT INTO "{schema}".tb_user (tenant_id, email, name, created_at)
SELECT t.id, format('user%s@example.com', n), format('User %s', n), timestamptz '2026-01-01Z' + n * interval '1 hour'
FROM unnest('{{{tenants}}}'::uuid[]) AS t (id), generate_series(1, {rows}) AS n;
ANALYZE "{schema}".tb_user;
RESET ROLE;
"""
# Onboarding fifty thousand would take longer than all rounds: each is a copy of a tenant that was onboarded.
_CROWD_REGISTRY = """
INSERT INTO tenants SELECT copy.* FROM tenants t, unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS c (id, n),
    jsonb_populate_record(t, jsonb_build_object('id', c.id, 'slug', 'crowd-' || c.n)) AS copy
WHERE t.id = :original
"""
_CROWD_HOME = """
INSERT INTO tenancy.tenants SELECT copy.* FROM tenancy.tenants t, unnest($1::uuid[]) WITH ORDINALITY AS c (id, n),
    jsonb_populate_record(t, jsonb_build_object('id', c.id, 'slug', 'crowd-' || c.n)) AS copy
WHERE t.id = $2
"""


@dataclass(frozen=True)
class Scene:
    """`requests` has one whole HTTP request per tenant, the same for everybody."""

    rival: Rival
    requests: list[str]


async def shared_scene(plane: ControlPlane, cluster: Cluster, dsn: str, tenants: int, rows: int) -> Scene:
    """Tenants of one shared home. `dsn` is the administrative one of the server."""
    await onboard(plane, "shared", tenants)
    home, ids = await _shared_home(plane)
    await _fill(plane, cluster, home, ids, rows)
    issuer, settings, user_id = development_issuer(plane.settings), plane.settings, uuid4()
    assert settings.signing_key is not None
    password = plane.databases.box.open(home.password)
    rival = Rival(
        dsn=dsn_with(dsn, database=home.database, user=home.role_name, password=password),
        schema_name=home.schema_name,
        pool_size=settings.shared_pool_size,
        signing_key=settings.signing_key.get_secret_value(),
        issuer=issuer.issuer,
        audience=issuer.tenant_audience,
        user_id=str(user_id),
    )
    return Scene(rival, list(requests_for(settings, ids, user_id)))


async def crowd(plane: ControlPlane, cluster: Cluster, count: int, rows: int) -> list[str]:
    """The requests of `count` more tenants of the shared home, each with a token of its own."""
    home, (original, *_) = await _shared_home(plane)
    ids = [uuid4() for _ in range(count)]
    async with plane.databases.registry.begin() as session:
        await session.execute(text(_CROWD_REGISTRY), {"ids": ids, "original": original})
    async with plane.databases.admin(cluster, home.database) as connection:
        await connection.execute(_CROWD_HOME, ids, original, timeout=300)
    await _fill(plane, cluster, home, ids, rows)
    return list(requests_for(plane.settings, ids, uuid4()))


async def schema_requests(plane: ControlPlane, cluster: Cluster, tenants: int, rows: int) -> list[str]:
    """The requests of new tenants with a schema each."""
    await onboard(plane, "schema", tenants)
    query = select(Tenant.id, Home).join(Home, Home.id == Tenant.home_id).where(Home.isolation == "schema")
    async with plane.databases.registry() as session:
        found = list((await session.execute(query)).tuples())
    async with plane.databases.admin(cluster, found[0][1].database) as connection:
        for tenant_id, home in found:
            await connection.execute(_ROWS.format(schema=home.schema_name, tenants=tenant_id, rows=rows))
    return list(requests_for(plane.settings, [tenant_id for tenant_id, _ in found], uuid4()))


async def _shared_home(plane: ControlPlane) -> tuple[Home, list[UUID]]:
    async with plane.databases.registry() as session:
        home = (await session.scalars(select(Home).where(Home.isolation == "shared"))).one()
        ids = list(await session.scalars(select(Tenant.id).where(Tenant.home_id == home.id).order_by(Tenant.slug)))
    return home, ids


async def _fill(plane: ControlPlane, cluster: Cluster, home: Home, ids: Sequence[UUID], rows: int) -> None:
    async with plane.databases.admin(cluster, home.database) as connection:
        listed = ",".join(map(str, ids))
        await connection.execute(_ROWS.format(schema=home.schema_name, tenants=listed, rows=rows), timeout=300)


def requests_for(settings: Settings, ids: Sequence[UUID], user_id: UUID, path: str = PATH) -> Iterator[str]:
    """One whole request per tenant, as user `user_id` of each."""
    issuer = development_issuer(settings)
    for tenant_id in ids:
        token = mint_tenant_token(issuer, tenant_id, user_id, ttl=86400)
        yield (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
            f"X-Tenant-Id: {tenant_id}\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
