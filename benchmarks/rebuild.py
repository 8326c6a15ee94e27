"""Folding an order again from its events: how much longer four times the events take."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import select

from benchmarks.figures import Ratio, Report, Series, ratio
from benchmarks.stage import dsn_with, installation, onboard, server_settings, settings_for, temporary_home
from control_plane.embedded import EmbeddedServer
from control_plane.pools.connect import connect
from control_plane.registry.models import Home, Tenant
from control_plane.settings import Settings

AT_ONCE = 1000  # events per append


@dataclass(frozen=True)
class Sizes:
    few: int = 2000
    many: int = 8000
    rounds: int = 15


QUICK = Sizes(few=20, many=80, rounds=1)


def run(quick: bool) -> Report:
    """`rebuild_order` of two orders in turns, each a transaction of a request."""
    sizes = QUICK if quick else Sizes()
    with temporary_home() as home, EmbeddedServer(home) as server:
        return asyncio.run(_measure(settings_for(home), sizes, server.admin_dsn, quick))


async def _measure(settings: Settings, sizes: Sizes, dsn: str, quick: bool) -> Report:
    report = Report("rebuild", quick, {**asdict(sizes), **await server_settings(dsn)})
    async with installation(settings) as (plane, _):
        await onboard(plane, "shared", 1)
        async with plane.databases.registry() as session:
            tenant = (await session.scalars(select(Tenant.id))).one()
            home = (await session.scalars(select(Home))).one()
        password = plane.databases.box.open(home.password)
    as_request = dsn_with(dsn, database=home.database, user=home.role_name, password=password)
    connection = await connect(as_request, application_name="benchmark")
    try:
        orders = Orders(connection, f'"{home.schema_name}__api_v2"', tenant)
        few, many = await orders.with_items(sizes.few), await orders.with_items(sizes.many)
        short, long = Series(f"{sizes.few} events", "s"), Series(f"{sizes.many} events", "s")
        for _ in range(sizes.rounds):
            for order, series in ((few, short), (many, long)):
                started = time.perf_counter()
                await orders.call("rebuild_order", id=str(order))
                series.values.append(time.perf_counter() - started)
    finally:
        await connection.close()
    report.figures = [short, long]
    report.ratios = [
        ratio(f"{sizes.many} events / {sizes.few} events", long, short, "< 8"),
        Ratio(f"rebuild of {sizes.many} events", "s", long.values, "< 1"),
    ]
    return report


@dataclass(frozen=True)
class Orders:
    """The functions of one tenant's API."""

    connection: asyncpg.Connection
    schema: str
    tenant: UUID

    async def call(self, function: str, **given: object) -> None:
        async with self.connection.transaction():
            await self.connection.execute("SELECT tenancy.set_tenant_context($1, $2)", self.tenant, uuid4())
            answer = await self.connection.fetchval(f"SELECT {self.schema}.{function}($1)", json.dumps(given))
        result = json.loads(answer)
        if not result["success"]:
            raise RuntimeError(f"{function}: {result['message']}")

    async def with_items(self, many: int) -> UUID:
        """The id of an order of `many` events."""
        order = uuid4()
        events: list[dict[str, object]] = [{"type": "Created", "data": {"customer": "c1"}}]
        events += [{"type": "ItemAdded", "data": {"sku": "A", "qty": 2}}] * (many - 1)
        for start in range(0, many, AT_ONCE):
            await self.call("append_order_events", stream_id=str(order), events=events[start : start + AT_ONCE])
        return order
