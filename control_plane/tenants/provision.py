"""Onboarding a tenant: the intent with all names first, then the home, then the route."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import InvalidInput
from control_plane.pools.databases import Databases
from control_plane.registry import audit, homes, template_versions, tenants
from control_plane.registry.models import ISOLATIONS, Operation, Tenant
from control_plane.templates import Templates
from control_plane.tenants import lifecycle, placement
from control_plane.tenants.removal import forget
from control_plane.tenants.slug import validate_slug
from control_plane.tenants.steps import Plan, Record, Step, Work


@dataclass(frozen=True)
class NewTenant:
    """A request to onboard a tenant; what is None is chosen."""

    slug: str
    name: str
    isolation: str
    plan: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    cluster: str | None = None
    template: str | None = None
    version: int | None = None


def check(new: NewTenant) -> None:
    """What needs no database. Raises `InvalidSlug`, `InvalidInput`."""
    validate_slug(new.slug)
    if new.isolation not in ISOLATIONS:
        raise InvalidInput(f"Unknown isolation: {new.isolation}.", hint=f"One of {', '.join(ISOLATIONS)}.")
    if not new.name.strip():
        raise InvalidInput("The name is empty.")


async def intend(
    session: AsyncSession, databases: Databases, templates: Templates, new: NewTenant, actor: str
) -> Operation:
    """Write tenant, home and (unsaved) operation; raises what `placement` raises, and `SlugTaken`."""
    template = templates[new.template or databases.settings.template]
    version = await placement.choose_version(session, template, new.version)
    cluster = await placement.choose_cluster(session, new.isolation, new.cluster)
    home = await placement.home_for(session, databases.box, cluster, new.isolation, template)
    version = placement.version_for(home, version, new.version)
    tenant = Tenant(
        id=uuid4(),
        slug=new.slug,
        name=new.name,
        isolation=new.isolation,
        plan=new.plan,
        labels=new.labels,
        status="provisioning",
        home_id=home.id,
    )
    await tenants.add(session, tenant)
    audit.record(session, actor, "tenant.create", tenant.id, slug=new.slug, isolation=new.isolation)
    return Operation(
        id=uuid4(),
        tenant_id=tenant.id,
        kind="provision",
        parameters={"version": version, "wanted": new.version, "actor": actor},
    )


async def _build(work: Work) -> Record:
    reached = await work.isolation.build(
        work.databases, work.cluster, work.home, work.tenant, work.template, work.parameters["version"]
    )
    wanted = work.parameters["wanted"]
    if wanted is None and work.home.isolation != "shared":
        reached = await _catch_up(work, reached)
    elif wanted is not None and reached != wanted:
        # Another request built the shared home meanwhile, at another version.
        raise placement.shared_conflict(reached, wanted)

    async def record(session: AsyncSession) -> None:
        await homes.built(session, work.home.id, reached)

    return record


async def _catch_up(work: Work, reached: int) -> int:
    """A release that began after this operation may have looked for homes before this one stood."""
    async with work.databases.registry() as session:
        released = await template_versions.current(session, work.template) or reached
    if released <= reached:
        return reached
    return await work.isolation.upgrade(work.databases, work.cluster, work.home, work.template, reached, released)


async def _activate(work: Work) -> Record:
    await work.isolation.set_state(work.databases, work.cluster, work.home, work.tenant, "active", work.tenant.epoch)

    async def record(session: AsyncSession) -> None:
        tenant = (await tenants.get(session, work.tenant.id, lock=True)).tenant
        tenant.status = lifecycle.require(tenant.status, "activate")
        audit.record(session, work.parameters["actor"], "tenant.activate", tenant.id)

    return record


async def _abandon(work: Work) -> Record:
    await work.isolation.drop(work.databases, work.cluster, work.home, work.tenant)

    async def record(session: AsyncSession) -> None:
        await forget(session, work.tenant.id, "abandon")
        audit.record(session, work.parameters["actor"], "tenant.abandon", work.tenant.id)

    return record


PROVISION = Plan(
    kind="provision",
    steps=(
        Step("build", "Building the home", 80, _build),
        Step("activate", "Opening the tenant", 100, _activate),
    ),
    undo=Step("abandon", "Undoing what was built", 100, _abandon),
)
