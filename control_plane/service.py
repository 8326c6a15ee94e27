"""Settings → ControlPlane: the one place where everything is assembled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.embedded import EmbeddedServer, home_secret
from control_plane.errors import (
    ClusterNameTaken,
    ClusterNotFound,
    ClusterUnavailable,
    ConfigurationError,
    RegistryUnavailable,
)
from control_plane.identity.verifier import TokenVerifier, build_verifier
from control_plane.isolation.cluster import prepare_cluster, require_safe, upgrade_tenancy
from control_plane.migrator.removals import require_sunset
from control_plane.operations.engine import Operations
from control_plane.pools.databases import Databases
from control_plane.pools.deprecated_calls import DeprecatedCalls
from control_plane.pools.feed import RegistryFeed
from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools
from control_plane.registry import clusters, template_versions
from control_plane.registry import upgrade as registry_schema
from control_plane.registry.fleet import read_fleet
from control_plane.registry.installation import installation_id
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings
from control_plane.templates import Templates
from control_plane.templates.release import release
from control_plane.tenants.clusters import add_cluster

FIRST_CLUSTER = "local"


@dataclass
class ControlPlane:
    """Everything that a verb, a route or a command may need."""

    settings: Settings
    databases: Databases
    templates: Templates
    operations: Operations
    placements: Placements
    request_pools: RequestPools
    deprecated_calls: DeprecatedCalls
    verifier: TokenVerifier
    feed: RegistryFeed
    installation_id: UUID

    async def start(self) -> None:
        """What a process that serves requests needs to know of issuers and of the registry, kept current from now on.

        An issuer or a registry that is down holds nobody up.
        """
        await asyncio.gather(self.verifier.start(), self.feed.start())

    async def require_safe_posture(self) -> None:
        """Raises `UnsafePosture` naming the fix where a cluster cannot isolate; an unreachable one shows in /readyz."""
        async with self.databases.registry() as session:
            found = await clusters.all_by_name(session)
        for cluster in found:
            with suppress(ClusterUnavailable):
                await require_safe(self.databases, cluster)


@dataclass(frozen=True)
class Initialised:
    """What `initialise` found or made; `clusters` maps names to "ready" or "unreachable"."""

    installation_id: UUID
    template: str
    released: int  # the version that new tenants get
    clusters: dict[str, str]


async def initialise(
    plane: ControlPlane, *, template_version: int | None = None, first_cluster: bool = True, actor: str
) -> Initialised:
    """Release the template, register the registry's own server as the first cluster, upgrade `tenancy` everywhere.

    Later calls release nothing unless told to: a fleet goes to its next version by `migrate-all`.
    Raises `TemplateNotFound`, `TemplateChanged`, `TemplateRefused`, `BeforeSunset`, `UnsafePosture`,
    `ClusterUnavailable` of the first cluster.
    """
    template = plane.templates[plane.settings.template]
    async with plane.databases.registry.begin() as session:
        released = await template_versions.current(session, template)
        if template_version is not None or released is None:
            upto = template.latest if template_version is None else template.version(template_version).number
            require_sunset(template, released, upto, None)
            await release(session, template, upto)
            released = max(upto, released or 0)
        known = await clusters.all_by_name(session)
    if first_cluster and not known:
        with suppress(ClusterNameTaken):  # by another `init` at the same time
            await add_cluster(plane.databases, FIRST_CLUSTER, plane.databases.registry_dsn, actor=actor)
    return Initialised(plane.installation_id, template.name, released, await _prepare_clusters(plane))


async def _prepare_clusters(plane: ControlPlane) -> dict[str, str]:
    async with plane.databases.registry() as session:
        fleet = await read_fleet(session, template=None)
    states = {}
    for cluster in {place.cluster.id: place.cluster for place in fleet.places}.values():
        own = [place for place in fleet.places if place.cluster is cluster and place.database != cluster.database]
        try:
            await prepare_cluster(plane.databases, plane.databases.box.open(cluster.dsn), plane.installation_id)
            for place in own:
                async with plane.databases.admin(cluster, place.database, purpose="init") as connection:
                    await upgrade_tenancy(connection)
            states[cluster.name] = "ready"
        except ClusterUnavailable:
            states[cluster.name] = "unreachable"
    return states


@asynccontextmanager
async def open_control_plane(settings: Settings, *, upgrade: bool = False) -> AsyncIterator[ControlPlane]:
    """The control plane of `settings`; starts the embedded server, or joins the running one, without CP_DATABASE_URL.

    `upgrade` brings the registry to this release; otherwise another state of it raises `ConfigurationError`.
    """
    settings = complete(settings)
    assert settings.secret_key is not None
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(_registry(settings))
        databases = Databases(dsn, SecretBox(settings.secret_key.get_secret_value()), settings)
        stack.push_async_callback(databases.aclose)
        await _prepare_registry(databases.engine, upgrade=upgrade)
        async with databases.registry() as session:
            installation = await installation_id(session)
        if settings.database_url is None:
            await _follow_embedded_server(databases, dsn)

        templates = Templates.load(settings.templates)
        pools = RequestPools(databases, settings)
        stack.push_async_callback(pools.aclose)
        calls = DeprecatedCalls(databases)
        stack.push_async_callback(calls.aclose)
        operations = Operations(databases, templates)
        stack.push_async_callback(operations.aclose)
        verifier = build_verifier(settings)
        stack.push_async_callback(verifier.aclose)
        placements = Placements(databases)
        feed = RegistryFeed(dsn, settings, placements, verifier.revocations)
        stack.push_async_callback(feed.aclose)
        yield ControlPlane(
            settings=settings,
            databases=databases,
            templates=templates,
            operations=operations,
            placements=placements,
            request_pools=pools,
            deprecated_calls=calls,
            verifier=verifier,
            feed=feed,
            installation_id=installation,
        )


def complete(settings: Settings) -> Settings:
    """`settings` with the two keys that an installation on the embedded server generates for itself in CP_HOME."""
    if settings.database_url is not None:
        if settings.secret_key is None:
            raise ConfigurationError(
                "CP_SECRET_KEY is not set.",
                hint='It seals credentials. Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
            )
        return settings
    keys = {
        name: SecretStr(home_secret(settings.home, name))
        for name in ("secret_key", "signing_key")
        if getattr(settings, name) is None
    }
    return settings.model_copy(update=keys)


@asynccontextmanager
async def _registry(settings: Settings) -> AsyncIterator[str]:
    """The registry's DSN. An embedded server stops with its last user."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    server = EmbeddedServer(settings.home, tcp_port=settings.database_port)
    await asyncio.to_thread(server.start)
    try:
        yield server.admin_dsn
    finally:
        await asyncio.to_thread(server.stop)


async def _prepare_registry(engine: AsyncEngine, *, upgrade: bool) -> None:
    try:
        if upgrade:
            await registry_schema.upgrade(engine)
        elif not await registry_schema.is_current(engine):
            raise ConfigurationError("The registry is not at this release's version.", hint="Run: cp init")
    except ClusterUnavailable as error:
        raise RegistryUnavailable(details=error.details, hint="Is CP_DATABASE_URL right, and its server up?") from error


async def _follow_embedded_server(databases: Databases, dsn: str) -> None:
    """A CP_HOME that was moved has its socket elsewhere; the first cluster's connection string follows."""
    async with databases.registry.begin() as session:
        with suppress(ClusterNotFound):
            cluster = await clusters.by_name(session, FIRST_CLUSTER)
            known = databases.box.open(cluster.dsn)
            if known != dsn and "@/control_plane?host=" in known:  # as the embedded server writes it
                cluster.dsn = databases.box.seal(dsn)
