"""How a fleet stands: which versions its homes are at, how far the oldest is behind, and what is in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from control_plane.migrator.plan import Unreached
from control_plane.migrator.versions import VersionCount, fleet_versions
from control_plane.pools.databases import Databases
from control_plane.registry import pins, runs, template_versions
from control_plane.registry.models import RunHome
from control_plane.registry.pins import ActivePin


@dataclass(frozen=True, slots=True)
class Skew:
    """The homes of one cluster, template and isolation, from the oldest version to the target.

    `target` is the version that new tenants get, and `behind` how many versions the oldest home is before it. `at` has
    the counts by version; version 0 is not built yet and counts for nothing else here.
    """

    cluster: str
    template: str
    isolation: str
    target: int
    oldest: int
    behind: int
    homes: int
    tenants: int
    at: Sequence[VersionCount] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """The whole fleet; `failed` are homes of the latest run of each template."""

    skews: Sequence[Skew]
    versions: Sequence[VersionCount]
    unreached: Sequence[Unreached]
    failed: Sequence[RunHome]
    pinned: Sequence[ActivePin]


async def fleet_standing(databases: Databases, template: str | None = None) -> Standing:
    """Asked of the databases themselves, with one query each; `template` None = all."""
    counts, unreached = await fleet_versions(databases, template)
    async with databases.registry() as session:
        targets = await template_versions.released(session)
        failed = await runs.failed_homes(session, template)
        pinned = await pins.active(session, template)
    return Standing(_skews(counts, targets), counts, unreached, failed, pinned)


def _skews(counts: Sequence[VersionCount], targets: dict[str, int]) -> list[Skew]:
    """`counts` are in order."""
    found = []
    for (cluster, template, isolation), group in groupby(
        counts, key=lambda count: (count.cluster, count.template, count.isolation)
    ):
        at = list(group)
        built = [count.version for count in at if count.version > 0]
        oldest = min(built, default=0)
        target = targets.get(template, max(built, default=0))
        found.append(
            Skew(
                cluster=cluster,
                template=template,
                isolation=isolation,
                target=target,
                oldest=oldest,
                behind=max(0, target - oldest) if built else 0,
                homes=sum(count.homes for count in at),
                tenants=sum(count.tenants for count in at),
                at=at,
            )
        )
    return found
