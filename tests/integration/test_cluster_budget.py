"""One budget for a cluster, with many dedicated homes that are asked for at random: real logins."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from control_plane.isolation.cluster import ensure_group
from control_plane.isolation.home import plan_home
from control_plane.isolation.login import scram_verifier
from control_plane.pools.budget import Budget
from control_plane.pools.placement import Placement
from control_plane.pools.requests import RequestPools
from control_plane.registry.models import Home
from control_plane.settings import Settings
from tests.integration.test_request_pools import settle
from tests.support.members import Members
from tests.support.mutation import mutated

SEED = 500


@dataclass(frozen=True)
class Load:
    homes: int
    requests: int
    budget: int


SMALL = Load(homes=60, requests=240, budget=6)


async def logins(members: Members, number: int) -> list[Home]:
    """Schema homes as pools see them: a login role each, and nothing behind it."""
    cluster, box = members.cluster, members.databases.box
    homes = [plan_home("schema", members.installation_id, cluster, "reference", box) for _ in range(number)]
    async with members.databases.admin(cluster) as admin:
        await ensure_group(admin, cluster.database)
        await admin.execute(
            ";".join(
                f"CREATE ROLE \"{home.role_name}\" LOGIN PASSWORD '{scram_verifier(box.open(home.password))}'"
                f' IN ROLE "{cluster.database}" ROLE CURRENT_USER'
                for home in homes
            )
        )
    async with members.databases.registry.begin() as session:
        session.add_all(homes)
    return homes


def placed(home: Home, tenant_id: UUID) -> Placement:
    return Placement(
        tenant_id=tenant_id,
        home_id=home.id,
        cluster_id=home.cluster_id,
        isolation=home.isolation,
        schema_name=home.schema_name,
        template=home.template,
        pattern_version=1,
        epoch=1,
        status="active",
        read_at=0.0,
    )


async def hold(members: Members, settings: Settings, load: Load) -> None:
    """Every request is answered as its own home's role, and the server never sees more sessions than the budget."""
    dice = random.Random(SEED)
    roles = {placed(home, uuid4()): home.role_name for home in await logins(members, load.homes)}
    tight = {"cluster_connections": load.budget, "dedicated_pool_size": 2, "acquire_timeout": 300.0}
    pools = RequestPools(members.databases, settings.model_copy(update=tight))
    ended = asyncio.Event()
    peak = 0

    async def watch() -> None:
        nonlocal peak
        async with members.databases.admin(members.cluster) as admin:
            while not ended.is_set():
                seen = "SELECT count(*) FROM pg_stat_activity WHERE usename = ANY ($1)"
                peak = max(peak, await admin.fetchval(seen, list(roles.values())))
                await asyncio.sleep(0.005)

    async def ask(placement: Placement) -> None:
        async with pools.connection(placement) as connection:
            assert await connection.fetchval("SELECT session_user FROM pg_sleep(0.001)") == roles[placement]

    async with aclosing(pools):  # also when an assertion fails, as one of the tests wants
        watching = asyncio.create_task(watch())
        try:
            await asyncio.gather(*(ask(dice.choice(list(roles))) for _ in range(load.requests)))
        finally:
            ended.set()
            await watching
        await settle(pools)
        assert pools.open_connections(members.cluster.id) <= load.budget
        assert 1 < peak <= load.budget
    assert pools.open_connections(members.cluster.id) == 0


async def test_the_budget_holds_whatever_the_number_of_homes(members: Members, settings: Settings) -> None:
    await hold(members, settings, SMALL)


@pytest.mark.long
async def test_the_budget_holds_under_500_tenants(members: Members, settings: Settings) -> None:
    print(f"seed {SEED}")
    await hold(members, settings, Load(homes=500, requests=3000, budget=40))


async def test_a_budget_that_is_exceeded_is_noticed(members: Members, settings: Settings) -> None:
    """Attack 37: `a home takes a slot beyond the budget`."""
    with (
        mutated(Budget.take_slot, "self.open < self.limit", "self.open < self.limit + 3"),
        pytest.raises(AssertionError),
    ):
        await hold(members, settings, SMALL)
