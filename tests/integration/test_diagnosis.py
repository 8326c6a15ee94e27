"""`cp doctor` finds what only one side knows of, whichever side that is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest_asyncio
from sqlalchemy import delete, update

from control_plane.isolation.names import installation_prefix
from control_plane.operations.engine import NewTenant
from control_plane.registry.models import Cluster, Home, IdempotencyKey, Operation, Tenant
from control_plane.service import ControlPlane
from control_plane.settings import Settings
from control_plane.tenants.diagnosis import diagnose
from control_plane.tenants.records import TenantRecord
from tests.support.callers import open_plane

Found = set[tuple[str, str]]


@pytest_asyncio.fixture
async def plane(settings: Settings, cluster: Cluster) -> AsyncIterator[ControlPlane]:
    async with open_plane(settings) as opened:
        yield opened


async def onboard(plane: ControlPlane, isolation: str) -> TenantRecord:
    new = NewTenant(slug=f"{isolation}-inc", name=isolation, isolation=isolation)
    tenant, operation = await plane.operations.create_tenant(new, actor="tests", wait=60)
    assert operation.status == "succeeded"
    return tenant


async def found(plane: ControlPlane) -> Found:
    return {(trouble.code, trouble.object) for trouble in await diagnose(plane.databases) if trouble.fatal}


async def test_a_healthy_installation_has_no_troubles(plane: ControlPlane) -> None:
    for isolation in ("shared", "schema", "database"):
        await onboard(plane, isolation)
    assert await found(plane) == set()


async def test_what_the_registry_forgot_is_an_orphan(plane: ControlPlane) -> None:
    homes = []
    for isolation in ("schema", "database"):
        tenant = await onboard(plane, isolation)
        async with plane.databases.registry.begin() as session:
            row = await session.get(Tenant, tenant.id)
            assert row is not None
            assert row.home_id is not None
            home = await session.get(Home, row.home_id)
            assert home is not None
            homes.append(home)
            await session.execute(delete(IdempotencyKey))
            await session.execute(delete(Operation).where(Operation.tenant_id == tenant.id))
            await session.execute(delete(Tenant).where(Tenant.id == tenant.id))
            await session.execute(delete(Home).where(Home.id == home.id))
    schema, database = homes
    assert await found(plane) >= {
        ("orphan_role", schema.role_name),
        ("orphan_schema", schema.schema_name),
        ("orphan_home", str(schema.id)),
        ("orphan_role", database.role_name),
        ("orphan_database", database.database),
    }


async def test_a_role_of_this_installation_without_a_home_is_an_orphan(
    plane: ControlPlane, cluster: Cluster, installation_id: UUID
) -> None:
    role = f"{installation_prefix(installation_id)}_t_{uuid4().hex[:12]}"
    async with plane.databases.admin(cluster) as connection:
        await connection.execute(f'CREATE ROLE "{role}" NOLOGIN')
    assert await found(plane) == {("orphan_role", role)}


async def test_a_home_that_is_gone_is_missed(plane: ControlPlane, cluster: Cluster) -> None:
    tenant = await onboard(plane, "schema")
    async with plane.databases.registry() as session:
        row = await session.get(Tenant, tenant.id)
        assert row is not None
        home = await session.get(Home, row.home_id)
        assert home is not None
    async with plane.databases.admin(cluster) as connection:
        await connection.execute(f"SELECT tenancy.drop_home('{home.id}')")
    assert await found(plane) == {("missing_home", home.schema_name), ("state_differs", tenant.slug)}


async def test_a_tenant_that_nobody_works_on_is_half_made(plane: ControlPlane) -> None:
    tenant = await onboard(plane, "schema")
    async with plane.databases.registry.begin() as session:
        await session.execute(update(Tenant).where(Tenant.id == tenant.id).values(status="deleting"))
    assert await found(plane) == {("half_made", tenant.slug)}
