"""Where a new tenant goes: the cluster, the template version, the home."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import ClusterNotFound, NoCapacity, VersionConflict
from control_plane.isolation import isolation_of
from control_plane.registry import clusters, homes, template_versions
from control_plane.registry.installation import installation_id
from control_plane.registry.models import Cluster, Home
from control_plane.registry.secrets import SecretBox
from control_plane.templates import Template
from control_plane.templates.release import release


async def choose_cluster(session: AsyncSession, isolation: str, name: str | None) -> Cluster:
    """The named cluster, else the one with the fewest tenants among those that have room.

    A cluster with a capacity stays locked until the transaction ends, so that two requests cannot take the last place.
    Raises `ClusterNotFound`, `NoCapacity`.
    """
    candidates = list(await clusters.accepting(session, isolation))
    if name is not None:
        candidates = [cluster for cluster in candidates if cluster.name == name]
        if not candidates:
            await _explain(session, isolation, name)
    if len(candidates) == 1 and candidates[0].capacity is None:
        return candidates[0]
    for cluster in [cluster for cluster in candidates if cluster.capacity is not None]:
        await clusters.lock(session, cluster)
    counts = await clusters.tenant_counts(session)
    room = [
        cluster for cluster in candidates if cluster.capacity is None or counts.get(cluster.id, 0) < cluster.capacity
    ]
    if not room:
        raise NoCapacity(f"Cluster {name!r} is full." if name is not None and candidates else None)
    return min(room, key=lambda cluster: (counts.get(cluster.id, 0), cluster.name))


async def _explain(session: AsyncSession, isolation: str, name: str) -> None:
    if not await clusters.exists(session, name):
        raise ClusterNotFound(f"There is no cluster {name!r}.")
    raise NoCapacity(f"Cluster {name!r} is draining or does not take tenants of isolation {isolation!r}.")


async def choose_version(session: AsyncSession, template: Template, wanted: int | None) -> int:
    """The wanted version if it was released, else the highest one that was; the very first tenant releases the latest.

    Raises `TemplateNotFound`, `TemplateChanged`, `TemplateRefused`, `VersionConflict`.
    """
    current = await template_versions.current(session, template)
    if current is None:
        current = template.latest
        await release(session, template, current)
    if wanted is None:
        return current
    template.version(wanted)
    if wanted > current:
        raise VersionConflict(
            f"Version {wanted} of the template has not been released to this fleet, which is at {current}.",
            hint=f"Release it first: cp migrate-all --to {wanted}.",
        )
    return wanted


async def home_for(session: AsyncSession, box: SecretBox, cluster: Cluster, isolation: str, template: Template) -> Home:
    """The cluster's shared home, or a new one: the names of all that will be built, so that nothing built is lost."""
    found = await homes.shared(session, cluster.id, template.name) if isolation == "shared" else None
    if found is not None:
        return found
    home = isolation_of(isolation).new_home(await installation_id(session), cluster, template.name, box)
    if isolation == "shared":
        return await homes.add_shared(session, home)
    session.add(home)
    await session.flush()
    return home


def version_for(home: Home, version: int, wanted: int | None) -> int:
    """A shared home has one version for all of its tenants. Raises `VersionConflict`."""
    if home.isolation != "shared" or not home.ready:
        return version
    if wanted is not None and wanted != home.pattern_version:
        raise shared_conflict(home.pattern_version, wanted)
    return home.pattern_version


def shared_conflict(present: int, wanted: int) -> VersionConflict:
    return VersionConflict(
        f"The shared home is at version {present}, not {wanted}.",
        hint="Leave the version out, or choose the isolation 'schema' or 'database'.",
    )
