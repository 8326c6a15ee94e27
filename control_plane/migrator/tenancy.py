"""The schema `tenancy` of every database is brought to this release before any home is touched."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.isolation.template_database import drop_stale_template_databases
from control_plane.isolation.tenancy_schema import upgrade_tenancy
from control_plane.pools.databases import Databases
from control_plane.registry.fleet import Place
from control_plane.templates import Template


async def bring_up(databases: Databases, template: Template, places: Sequence[Place]) -> None:
    """Upgrade `tenancy` in `places`.

    Template databases carry the checksum of their `tenancy` in their names: the next tenant has a new one made, and
    the old ones go.
    """
    for place in places:
        async with databases.admin(place.cluster, place.database, purpose="migrate tenancy") as connection:
            await upgrade_tenancy(connection)
    for cluster in {place.cluster.id: place.cluster for place in places}.values():
        await drop_stale_template_databases(databases, cluster, template)
