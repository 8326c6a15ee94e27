"""Which versions the fleet is at, asked of the databases themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from control_plane.errors import ClusterUnavailable
from control_plane.migrator.debts import fetch
from control_plane.migrator.plan import PLAN_CONNECTIONS, Unreached
from control_plane.pools.databases import Databases
from control_plane.registry.fleet import Place, read_fleet
from control_plane.settings import shipped

_VERSIONS = (shipped("sql") / "migrator" / "versions.sql").read_text()


@dataclass(frozen=True, slots=True)
class VersionCount:
    """Homes and tenants of one cluster, template and isolation at one version; version 0 is not built yet.

    `owing` homes still have steps of the version to finish.
    """

    cluster: str
    template: str
    isolation: str
    version: int
    homes: int
    tenants: int
    owing: int


async def fleet_versions(
    databases: Databases, template: str | None = None
) -> tuple[list[VersionCount], list[Unreached]]:
    """The counts in order, and the databases that did not answer; one query per database."""
    async with databases.registry() as session:
        fleet = await read_fleet(session, template)
    gate = asyncio.Semaphore(PLAN_CONNECTIONS)
    answers = await asyncio.gather(*(_count(databases, gate, place, template) for place in fleet.places))
    unreached = [answer for answer in answers if isinstance(answer, Unreached)]
    totals: dict[tuple[str, str, str, int], list[int]] = {}
    for answer in answers:
        if isinstance(answer, Unreached):
            continue
        for count in answer:
            key = (count.cluster, count.template, count.isolation, count.version)
            total = totals.setdefault(key, [0, 0, 0])
            for index, number in enumerate((count.homes, count.tenants, count.owing)):
                total[index] += number
    return [VersionCount(*key, *totals[key]) for key in sorted(totals)], unreached


async def _count(
    databases: Databases, gate: asyncio.Semaphore, place: Place, template: str | None
) -> Sequence[VersionCount] | Unreached:
    async with gate:
        try:
            async with databases.admin(place.cluster, place.database, purpose="migrate status") as connection:
                rows = await fetch(connection, _VERSIONS, template)
        except ClusterUnavailable as error:
            return Unreached(place, f"{error.message} ({error.details})")
        except asyncpg.PostgresError as error:
            return Unreached(place, str(error))
    return [VersionCount(place.cluster.name, *row.values()) for row in rows]
