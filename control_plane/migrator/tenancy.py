"""The schema `tenancy` of every database is brought to this release before any home is touched."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.isolation.tenancy_schema import upgrade_tenancy
from control_plane.pools.databases import Databases
from control_plane.registry.fleet import Place


async def bring_up(databases: Databases, places: Sequence[Place]) -> None:
    """Upgrade `tenancy` in `places`. Template databases carry its checksum in their names, so they are made anew."""
    for place in places:
        async with databases.admin(place.cluster, place.database, purpose="migrate tenancy") as connection:
            await upgrade_tenancy(connection)
