"""Onboarding and deleting tenants, without crashes."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from control_plane.errors import (
    ClusterNotFound,
    ControlPlaneError,
    IdempotencyKeyReused,
    InvalidInput,
    InvalidSlug,
    NoCapacity,
    SlugTaken,
    TemplateNotFound,
    TenantNotFound,
    VersionConflict,
)
from control_plane.isolation import isolation_of
from control_plane.operations.engine import NewTenant, Operations
from control_plane.operations.records import get_operation
from control_plane.pools.databases import Databases
from control_plane.registry import template_versions
from control_plane.registry.models import AuditEvent, Cluster, Home, Operation, Tenant
from control_plane.templates import Templates
from control_plane.tenants.records import get_tenant
from control_plane.tenants.slug import RESERVED

MODES = ("shared", "schema", "database")
WAIT = 60.0


async def states(databases: Databases, cluster: Cluster, database: str) -> dict[str, str]:
    """The tenants that a database knows, by slug."""
    async with databases.admin(cluster, database) as connection:
        return {row["slug"]: row["state"] for row in await connection.fetch("SELECT slug, state FROM tenancy.tenants")}


async def home_of(databases: Databases, slug: str) -> Home:
    async with databases.registry() as session:
        query = select(Home).join(Tenant, Tenant.home_id == Home.id).where(Tenant.slug == slug)
        return (await session.scalars(query)).one()


async def traces(databases: Databases, cluster: Cluster, home: Home) -> list[str]:
    """What is left of a home on its server: schemas, roles, databases."""
    async with databases.admin(cluster) as connection:
        rows = await connection.fetch(
            """
            SELECT nspname AS name FROM pg_namespace WHERE nspname LIKE $1 || '%'
            UNION ALL SELECT rolname FROM pg_roles WHERE rolname = $2
            UNION ALL SELECT datname FROM pg_database WHERE datname = $3 AND datname <> $4
            """,
            home.schema_name,
            home.role_name,
            home.database,
            cluster.database,
        )
        return [row["name"] for row in rows]


@pytest.mark.parametrize("isolation", MODES)
async def test_a_new_tenant_is_active_at_the_latest_version(
    operations: Operations, databases: Databases, templates: Templates, cluster: Cluster, isolation: str
) -> None:
    new = NewTenant("acme", "Acme Inc.", isolation, plan="team", labels={"region": "eu"})
    tenant, operation = await operations.create_tenant(new, actor="ann", wait=WAIT)
    assert (operation.status, operation.percent, operation.error) == ("succeeded", 100, None)
    assert (tenant.slug, tenant.name, tenant.isolation, tenant.plan) == ("acme", "Acme Inc.", isolation, "team")
    assert (tenant.status, tenant.labels, tenant.cluster) == ("active", {"region": "eu"}, "main")
    assert tenant.pattern_version == templates["reference"].latest
    assert await get_tenant(databases, "acme") == tenant == await get_tenant(databases, str(tenant.id))
    home = await home_of(databases, "acme")
    assert home.ready
    assert (await states(databases, cluster, home.database))["acme"] == "active"


@pytest.mark.parametrize("isolation", MODES)
async def test_a_deleted_tenant_leaves_nothing_and_its_slug_is_free(
    operations: Operations, databases: Databases, cluster: Cluster, isolation: str
) -> None:
    new = NewTenant("acme", "Acme", isolation)
    first, _ = await operations.create_tenant(new, actor="ann", wait=WAIT)
    home = await home_of(databases, "acme")
    deleted, operation = await operations.delete_tenant("acme", actor="ann", wait=WAIT)
    assert (deleted.status, operation.status) == ("deleted", "succeeded")
    if isolation != "shared":
        assert await traces(databases, cluster, home) == []
    assert "acme" not in await states(databases, cluster, cluster.database)
    with pytest.raises(TenantNotFound):
        await get_tenant(databases, first.id)
    again, _ = await operations.create_tenant(new, actor="ann", wait=WAIT)
    assert again.status == "active"
    assert again.id != first.id


async def test_every_verb_is_audited_with_its_actor(operations: Operations, databases: Databases) -> None:
    await operations.create_tenant(NewTenant("acme", "Acme", "schema"), actor="ann", wait=WAIT)
    await operations.delete_tenant("acme", actor="bob", wait=WAIT)
    async with databases.registry() as session:
        events = (await session.execute(select(AuditEvent.actor, AuditEvent.action).order_by(AuditEvent.id))).all()
    assert [tuple(event) for event in events] == [
        ("ann", "tenant.create"),
        ("ann", "tenant.activate"),
        ("bob", "tenant.delete"),
        ("bob", "tenant.remove"),
    ]


async def test_without_time_to_wait_the_running_operation_is_answered(
    operations: Operations, databases: Databases
) -> None:
    tenant, operation = await operations.create_tenant(NewTenant("acme", "Acme", "schema"), actor="ann", wait=0)
    assert (tenant.status, operation.status, operation.finished) == ("provisioning", "running", False)
    while not (await get_operation(databases, operation.id)).finished:
        await asyncio.sleep(0.05)
    assert (await get_tenant(databases, "acme")).status == "active"


async def test_a_tenant_outlives_the_client_who_asked_for_it(operations: Operations, databases: Databases) -> None:
    request = asyncio.create_task(operations.create_tenant(NewTenant("acme", "Acme", "schema"), actor="ann", wait=WAIT))
    while True:
        async with databases.registry() as session:
            if await session.scalar(select(Operation.id)):
                break
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    while (await get_tenant(databases, "acme")).status != "active":
        await asyncio.sleep(0.05)


async def test_the_same_key_and_request_answer_the_same_tenant(operations: Operations, databases: Databases) -> None:
    new = NewTenant("acme", "Acme", "schema")
    first = await operations.create_tenant(new, actor="ann", idempotency_key="k1", wait=WAIT)
    assert await operations.create_tenant(new, actor="ann", idempotency_key="k1", wait=WAIT) == first
    with pytest.raises(IdempotencyKeyReused):
        await operations.create_tenant(
            NewTenant("acme", "Other", "schema"), actor="ann", idempotency_key="k1", wait=WAIT
        )
    with pytest.raises(SlugTaken):  # another caller's key is another key
        await operations.create_tenant(new, actor="bob", idempotency_key="k1", wait=WAIT)


async def test_the_same_key_at_the_same_time_creates_one_tenant(operations: Operations) -> None:
    new = NewTenant("acme", "Acme", "schema")
    outcomes = await asyncio.gather(
        *(operations.create_tenant(new, actor="ann", idempotency_key="k1", wait=WAIT) for _ in range(5))
    )
    assert len({tenant.id for tenant, _ in outcomes}) == 1


@pytest.mark.parametrize("isolation", MODES)
async def test_of_requests_for_the_same_slug_exactly_one_wins(operations: Operations, isolation: str) -> None:
    outcomes = await asyncio.gather(
        *(operations.create_tenant(NewTenant("race", "Race", isolation), actor="ann", wait=WAIT) for _ in range(5)),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["SlugTaken"] * 4 + ["tuple"]


async def test_fifty_tenants_at_once_all_become_active(operations: Operations, databases: Databases) -> None:
    outcomes = await asyncio.gather(
        *(
            operations.create_tenant(NewTenant(f"t{n}", "T", ("shared", "schema")[n % 2]), actor="ann", wait=WAIT)
            for n in range(50)
        )
    )
    assert {tenant.status for tenant, _ in outcomes} == {"active"}
    async with databases.registry() as session:
        shared = select(func.count()).select_from(Home).where(Home.isolation == "shared")
        assert await session.scalar(shared) == 1


@pytest.mark.parametrize(
    ("new", "error"),
    [
        (NewTenant("Acme", "Acme", "schema"), InvalidSlug),
        (NewTenant("acme", "Acme", "nowhere"), InvalidInput),
        (NewTenant("acme", " ", "schema"), InvalidInput),
        (NewTenant("acme", "Acme", "schema", cluster="none"), ClusterNotFound),
        (NewTenant("acme", "Acme", "schema", template="none"), TemplateNotFound),
        (NewTenant("acme", "Acme", "schema", version=99), TemplateNotFound),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_written(
    operations: Operations, databases: Databases, new: NewTenant, error: type[ControlPlaneError]
) -> None:
    with pytest.raises(error):
        await operations.create_tenant(new, actor="ann", wait=WAIT)
    async with databases.registry() as session:
        for model in (Tenant, Home, Operation):
            assert await session.scalar(select(func.count()).select_from(model)) == 0


async def test_a_fleet_at_version_one_gives_version_one_to_new_tenants(
    operations: Operations, databases: Databases, templates: Templates
) -> None:
    async with databases.registry.begin() as session:
        await template_versions.release(session, templates["reference"], 1)
    for isolation in MODES:
        new = NewTenant(f"acme-{isolation}", "Acme", isolation)
        tenant, _ = await operations.create_tenant(new, actor="ann", wait=WAIT)
        assert tenant.pattern_version == 1
    with pytest.raises(VersionConflict, match="has not been released"):
        await operations.create_tenant(NewTenant("later", "Later", "schema", version=2), actor="ann", wait=WAIT)


@pytest.mark.parametrize("isolation", ["schema", "database"])
async def test_a_release_that_begins_while_a_home_is_built_reaches_its_tenant(
    operations: Operations,
    databases: Databases,
    templates: Templates,
    monkeypatch: pytest.MonkeyPatch,
    isolation: str,
) -> None:
    template, mode = templates["reference"], type(isolation_of(isolation))
    async with databases.registry.begin() as session:
        await template_versions.release(session, template, 1)
    build = mode.build

    async def overtaken(*arguments: Any) -> int:
        reached = await build(*arguments)
        async with databases.registry.begin() as session:
            await template_versions.release(session, template, 3)
        return reached

    monkeypatch.setattr(mode, "build", overtaken)
    tenant, _ = await operations.create_tenant(NewTenant("acme", "Acme", isolation), actor="ann", wait=WAIT)
    assert tenant.pattern_version == 3


async def test_an_older_version_is_possible_but_not_beside_a_shared_home(
    operations: Operations, templates: Templates
) -> None:
    old, _ = await operations.create_tenant(NewTenant("old", "Old", "schema", version=1), actor="ann", wait=WAIT)
    assert old.pattern_version == 1
    first, _ = await operations.create_tenant(NewTenant("first", "First", "shared"), actor="ann", wait=WAIT)
    assert first.pattern_version == templates["reference"].latest
    with pytest.raises(VersionConflict, match="shared home"):
        await operations.create_tenant(NewTenant("second", "S", "shared", version=1), actor="ann", wait=WAIT)


async def test_two_versions_for_a_shared_home_that_is_not_built_yet_end_in_one(
    operations: Operations, databases: Databases
) -> None:
    outcomes = await asyncio.gather(
        *(
            operations.create_tenant(NewTenant(f"v{n}", "V", "shared", version=n), actor="ann", wait=WAIT)
            for n in (1, 2)
        ),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["VersionConflict", "tuple"]


async def test_tenants_go_to_the_cluster_with_the_fewest_and_never_past_its_capacity(
    operations: Operations, databases: Databases, cluster: Cluster
) -> None:
    small = Cluster(
        id=uuid4(), name="small", dsn=cluster.dsn, database=cluster.database, isolations=["schema"], capacity=2
    )
    async with databases.registry.begin() as session:
        session.add(small)
    placed = [
        (await operations.create_tenant(NewTenant(f"t{n}", "T", "schema"), actor="ann", wait=WAIT))[0].cluster
        for n in range(6)
    ]
    assert placed == ["main", "small", "main", "small", "main", "main"]
    with pytest.raises(NoCapacity, match="full"):
        await operations.create_tenant(NewTenant("more", "T", "schema", cluster="small"), actor="ann", wait=WAIT)
    with pytest.raises(NoCapacity, match="isolation"):
        await operations.create_tenant(NewTenant("more", "T", "shared", cluster="small"), actor="ann", wait=WAIT)


async def test_two_requests_cannot_take_the_last_place(
    operations: Operations, databases: Databases, cluster: Cluster
) -> None:
    async with databases.registry.begin() as session:
        (await session.get_one(Cluster, cluster.id)).capacity = 2
    outcomes = await asyncio.gather(
        *(operations.create_tenant(NewTenant(f"t{n}", "T", "schema"), actor="ann", wait=WAIT) for n in range(5)),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoCapacity"] * 3 + ["tuple"] * 2


async def test_service_and_database_reserve_the_same_slugs(databases: Databases, cluster: Cluster) -> None:
    async with databases.admin(cluster) as connection:
        assert set(await connection.fetchval("SELECT tenancy.reserved_slugs()")) == RESERVED
