"""The placement cache: a hint that survives the registry's absence, and no authority."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from control_plane.errors import RegistryUnavailable, TenantNotFound, TenantNotReady
from control_plane.pools.databases import Databases
from control_plane.pools.placement import HEARD_TTLS, STALE_TTLS, Placement, Placements
from tests.support.members import Members


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counted(Placements):
    """Counts reads of the registry, which can be held up and taken away."""

    def __init__(self, databases: Databases, clock: Clock, max_tenants: int = 10) -> None:
        super().__init__(databases, clock=clock, max_tenants=max_tenants)
        self.reads = 0
        self.go = asyncio.Event()
        self.go.set()
        self.down = False

    async def _read_registry(self, tenant_id: object) -> Placement:
        self.reads += 1
        if self.down:
            raise ConnectionRefusedError
        found = await super()._read_registry(tenant_id)  # type: ignore[arg-type]
        await self.go.wait()
        return found


async def test_a_placement_is_read_once_per_ttl_by_however_many(members: Members) -> None:
    member = await members.add("acme")
    clock = Clock()
    placements = Counted(members.databases, clock)
    assert placements.fresh(member.id) is None
    found = await asyncio.gather(*(placements.resolve(member.id) for _ in range(20)))
    assert placements.reads == 1
    assert {each.schema_name for each in found} == {member.home.schema_name}
    assert placements.fresh(member.id) is found[0]
    clock.now += members.databases.settings.placement_ttl
    assert placements.fresh(member.id) is None
    await placements.resolve(member.id)
    assert placements.reads == 2


async def test_a_placement_is_kept_for_longer_while_the_registrys_notices_are_heard(members: Members) -> None:
    ttl = members.databases.settings.placement_ttl
    member, clock = await members.add("acme"), Clock()
    placements = Counted(members.databases, clock)
    placements.hear()
    await placements.resolve(member.id)
    clock.now += HEARD_TTLS * ttl - 1
    assert placements.fresh(member.id)
    clock.now += 1
    assert placements.fresh(member.id) is None

    await placements.resolve(member.id)
    placements.stop_hearing()
    clock.now += ttl - 1
    assert placements.fresh(member.id)
    clock.now += 1
    assert placements.fresh(member.id) is None
    await placements.resolve(member.id)
    clock.now += ttl
    assert placements.fresh(member.id) is None


async def test_a_placement_that_the_registry_would_have_recalled_is_as_good_as_a_new_one(members: Members) -> None:
    ttl = members.databases.settings.placement_ttl
    member, clock = await members.add("acme"), Clock()
    placements = Counted(members.databases, clock)
    placements.hear()
    known = await placements.resolve(member.id)
    clock.now += HEARD_TTLS * ttl
    placements.hear()
    placements.stop_hearing()
    placements.down = True
    clock.now += STALE_TTLS * ttl
    assert await placements.resolve(member.id) is known
    clock.now += ttl
    with pytest.raises(RegistryUnavailable):
        await placements.resolve(member.id)


async def test_the_first_caller_may_give_up_without_failing_the_others(members: Members) -> None:
    member = await members.add("acme")
    placements = Counted(members.databases, Clock())
    placements.go.clear()
    first, second = (asyncio.create_task(placements.resolve(member.id)) for _ in range(2))
    await asyncio.sleep(0.05)
    first.cancel()
    placements.go.set()
    assert (await second).tenant_id == member.id
    assert placements.reads == 1


async def test_a_read_that_began_before_forget_is_not_believed(members: Members) -> None:
    member = await members.add("acme")
    placements = Counted(members.databases, Clock())
    placements.go.clear()
    early = asyncio.create_task(placements.resolve(member.id))
    await asyncio.sleep(0.05)
    await members.record(member, epoch=2)
    placements.forget(member.id)
    placements.go.set()
    assert (await early).epoch == 1
    assert (await placements.resolve(member.id)).epoch == 2


async def test_known_tenants_outlive_the_registry_within_the_bound(members: Members) -> None:
    member = await members.add("acme")
    clock = Clock()
    placements = Counted(members.databases, clock)
    known = await placements.resolve(member.id)
    placements.down = True
    clock.now += STALE_TTLS * members.databases.settings.placement_ttl
    reads = placements.reads
    for _ in range(5):
        assert (placements.fresh(member.id) or await placements.resolve(member.id)) is known
    assert placements.reads == reads + 1  # a registry that is down is not asked on every request
    clock.now += members.databases.settings.placement_ttl
    with pytest.raises(RegistryUnavailable):
        await placements.resolve(member.id)
    with pytest.raises(RegistryUnavailable):
        await placements.resolve(uuid4())


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("provisioning", TenantNotReady),
        ("deleting", TenantNotFound),
        ("deleted", TenantNotFound),
    ],
)
async def test_a_tenant_without_a_home_to_serve_it_has_no_placement(
    members: Members, status: str, error: type[Exception]
) -> None:
    member = await members.add("acme")
    await members.record(member, status=status)
    with pytest.raises(error):
        await Counted(members.databases, Clock()).resolve(member.id)


async def test_a_suspended_tenant_has_a_placement_for_its_database_to_refuse(members: Members) -> None:
    # so that resuming takes effect at once, whatever is cached
    member = await members.add("acme")
    await members.record(member, status="suspended")
    assert (await Counted(members.databases, Clock()).resolve(member.id)).status == "suspended"


async def test_absence_is_believed_for_a_moment_only(members: Members) -> None:
    clock = Clock()
    placements = Counted(members.databases, clock)
    unknown = uuid4()
    for _ in range(3):
        with pytest.raises(TenantNotFound):
            await placements.resolve(unknown)
    assert placements.reads == 1
    clock.now += 2
    with pytest.raises(TenantNotFound):
        await placements.resolve(unknown)
    assert placements.reads == 2


async def test_the_cache_is_bounded(members: Members) -> None:
    placements = Counted(members.databases, Clock(), max_tenants=3)
    for _ in range(9):
        with pytest.raises(TenantNotFound):
            await placements.resolve(uuid4())
    assert len(placements._entries) == 3


async def test_refresh_reads_again_only_what_has_aged(members: Members) -> None:
    member = await members.add("acme")
    clock = Clock()
    placements = Counted(members.databases, clock)
    known = await placements.resolve(member.id)
    assert await placements.refresh(known) is known
    clock.now += 1.5
    assert await placements.refresh(known) is not known
    placements.down = True
    clock.now += 1.5
    assert await placements.refresh(known) is known
