"""Changes on tenants and clusters that take effect while the caller waits."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from control_plane.errors import (
    ClusterNameTaken,
    ClusterNotFound,
    ClusterUnavailable,
    Conflict,
    InvalidInput,
    InvalidTransition,
    NoCapacity,
    TenantNotFound,
)
from control_plane.isolation.schema import SchemaIsolation
from control_plane.operations.engine import NewTenant, Operations
from control_plane.pools.databases import Databases
from control_plane.registry.models import AuditEvent, Cluster, Tenant
from control_plane.tenants import clusters
from control_plane.tenants.changes import resume_tenant, suspend_tenant, update_tenant
from control_plane.tenants.records import TenantRecord, get_tenant, list_tenants
from tests.support.servers import Server

MODES = ("shared", "schema", "database")
WAIT = 60.0


async def create(operations: Operations, slug: str = "acme", isolation: str = "schema") -> TenantRecord:
    tenant, _ = await operations.create_tenant(NewTenant(slug, "Acme", isolation), actor="ann", wait=WAIT)
    return tenant


async def placed(databases: Databases, cluster: Cluster, slug: str = "acme") -> tuple[str, int, int]:
    """State and epoch in the tenant's database, and the registry's epoch."""
    async with databases.registry() as session:
        tenant = (await session.scalars(select(Tenant).where(Tenant.slug == slug))).one()
    async with databases.admin(cluster) as connection:
        row = await connection.fetchrow("SELECT state, epoch FROM tenancy.tenants WHERE id = $1", tenant.id)
    assert row is not None
    return row["state"], row["epoch"], tenant.epoch


@pytest.mark.parametrize("isolation", MODES)
async def test_suspend_and_resume_can_be_repeated(operations: Operations, databases: Databases, isolation: str) -> None:
    await create(operations, isolation=isolation)
    for verb, status in ((suspend_tenant, "suspended"), (resume_tenant, "active")):
        assert (await verb(databases, "acme", actor="ann")).status == status
        assert (await verb(databases, "acme", actor="ann")).status == status
    async with databases.registry() as session:
        actions = (await session.scalars(select(AuditEvent.action).order_by(AuditEvent.id))).all()
    assert actions[-2:] == ["tenant.suspend", "tenant.resume"]


async def test_every_change_of_state_has_a_new_epoch_on_both_sides(
    operations: Operations, databases: Databases, cluster: Cluster
) -> None:
    await create(operations)
    epochs = [(await placed(databases, cluster))[1:]]
    await suspend_tenant(databases, "acme", actor="ann")
    assert (await placed(databases, cluster))[0] == "suspended"
    epochs.append((await placed(databases, cluster))[1:])
    await resume_tenant(databases, "acme", actor="ann")
    epochs.append((await placed(databases, cluster))[1:])
    assert [there for there, _ in epochs] == [here for _, here in epochs]
    assert sorted({here for _, here in epochs}) == [here for _, here in epochs]


async def test_a_suspension_that_fails_half_way_closes_the_tenant_and_can_be_repeated(
    operations: Operations, databases: Databases, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(operations)
    set_state = SchemaIsolation.set_state

    async def answer_lost(*arguments: object) -> None:
        await set_state(*arguments)  # type: ignore[arg-type]
        raise ClusterUnavailable

    monkeypatch.setattr(SchemaIsolation, "set_state", answer_lost)
    with pytest.raises(ClusterUnavailable):
        await suspend_tenant(databases, "acme", actor="ann")
    state, there, here = await placed(databases, cluster)
    assert (state, there > here) == ("suspended", True)
    monkeypatch.undo()
    await resume_tenant(databases, "acme", actor="ann")
    state, there, here = await placed(databases, cluster)
    assert (state, there) == ("active", here)


async def test_suspends_and_resumes_at_the_same_time_end_in_one_state_on_both_sides(
    operations: Operations, databases: Databases, cluster: Cluster
) -> None:
    await create(operations)
    await asyncio.gather(
        *(verb(databases, "acme", actor="ann") for _ in range(5) for verb in (suspend_tenant, resume_tenant))
    )
    state, there, here = await placed(databases, cluster)
    assert (state, there) == ((await get_tenant(databases, "acme")).status, here)


async def test_a_tenant_that_is_being_deleted_accepts_no_change(operations: Operations, databases: Databases) -> None:
    await create(operations)
    async with databases.registry.begin() as session:
        (await session.scalars(select(Tenant))).one().status = "deleting"
    for verb in (suspend_tenant, resume_tenant):
        with pytest.raises(InvalidTransition):
            await verb(databases, "acme", actor="ann")
    with pytest.raises(InvalidTransition):
        await update_tenant(databases, "acme", actor="ann", name="New")


async def test_an_update_changes_what_is_given_and_nothing_else(operations: Operations, databases: Databases) -> None:
    tenant, _ = await operations.create_tenant(
        NewTenant("acme", "Acme", "schema", plan="team", labels={"a": "1"}), actor="ann", wait=WAIT
    )
    renamed = await update_tenant(databases, "acme", actor="ann", name="New")
    assert (renamed.name, renamed.plan, renamed.labels) == ("New", "team", {"a": "1"})
    assert renamed.updated_at > tenant.updated_at
    cleared = await update_tenant(databases, tenant.id, actor="ann", plan=None, labels={"b": "2"})
    assert (cleared.name, cleared.plan, cleared.labels) == ("New", None, {"b": "2"})
    assert await update_tenant(databases, tenant.id, actor="ann", name="New") == cleared


async def test_an_unknown_tenant_is_not_found_by_any_verb(databases: Databases) -> None:
    for ref in ("nobody", "9b6f9a52-6a0f-4d5c-9a55-6a1c2a6f0d11", "", "\0", "\N{SNOWMAN}"):
        with pytest.raises(TenantNotFound):
            await get_tenant(databases, ref)
        with pytest.raises(TenantNotFound):
            await suspend_tenant(databases, ref, actor="ann")


async def test_a_list_is_paged_and_filtered(operations: Operations, databases: Databases) -> None:
    for number, isolation in enumerate(("shared", "schema", "shared", "schema", "schema")):
        await create(operations, f"t{number}", isolation)
    await suspend_tenant(databases, "t1", actor="ann")
    await operations.delete_tenant("t4", actor="ann", wait=WAIT)

    seen, cursor = [], None
    while True:
        page = await list_tenants(databases, limit=2, cursor=cursor)
        assert len(page.items) <= 2
        seen += [tenant.slug for tenant in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ["t0", "t1", "t2", "t3"]

    async def slugs(**filters: object) -> list[str]:
        return [tenant.slug for tenant in (await list_tenants(databases, **filters)).items]  # type: ignore[arg-type]

    assert await slugs(isolation="schema") == ["t1", "t3"]
    assert await slugs(status="suspended") == ["t1"]
    assert await slugs(status="deleted") == ["t4"]
    assert await slugs(version=1) == []
    assert await slugs(cluster="main", isolation="shared") == ["t0", "t2"]
    assert await slugs(cluster="other") == []
    for cursor in ("x", "é", "", "AAAA", "ACAwMDAwMDAwMC0wMDAwLTAwMDAtMDAwMC0wMDAwMDAwMDAwMDA"):
        with pytest.raises(InvalidInput):
            await list_tenants(databases, cursor=cursor)


async def test_a_cluster_is_prepared_checked_and_listed(
    server: Server, second_server: Server, operations: Operations, databases: Databases
) -> None:
    dsn = second_server.dsn
    added = await clusters.add_cluster(databases, "second", dsn, region="eu", isolations=["schema"], actor="ann")
    assert (added.name, added.status, added.region, added.isolations) == ("second", "active", "eu", ["schema"])
    assert [cluster.name for cluster in await clusters.list_clusters(databases)] == ["main", "second"]
    assert [finding for finding in await clusters.check(databases, "second") if finding.fatal] == []
    with pytest.raises(ClusterNameTaken):
        await clusters.add_cluster(databases, "second", dsn, actor="ann")
    with pytest.raises(Conflict, match="registered as cluster 'main'"):
        await clusters.add_cluster(databases, "third", server.dsn, actor="ann")
    with pytest.raises(InvalidInput):
        await clusters.add_cluster(databases, "third", server.dsn, isolations=["none"], actor="ann")
    with pytest.raises(ClusterUnavailable):
        await clusters.add_cluster(databases, "third", "postgresql://x@127.0.0.1:1/x", actor="ann")
    with pytest.raises(ClusterNotFound):
        await clusters.check(databases, "third")


async def test_a_draining_cluster_takes_no_new_tenants_and_keeps_its_own(
    operations: Operations, databases: Databases
) -> None:
    await create(operations)
    drained = await clusters.drain_cluster(databases, "main", actor="ann")
    assert (drained.status, drained.tenants) == ("draining", 1)
    assert await clusters.drain_cluster(databases, "main", actor="ann") == drained
    with pytest.raises(NoCapacity):
        await create(operations, "other")
    assert (await suspend_tenant(databases, "acme", actor="ann")).status == "suspended"
