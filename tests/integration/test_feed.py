"""What a process hears of the registry's changes, and what it does while it hears nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from control_plane.errors import InvalidToken, RegistryUnavailable
from control_plane.identity.principal import Principal
from control_plane.identity.revocations import Revocations
from control_plane.pools import feed as feeds
from control_plane.pools.feed import RegistryFeed
from control_plane.pools.placement import Placements
from control_plane.registry.models import Home
from control_plane.tenants.changes import suspend_tenant, update_tenant
from control_plane.tenants.revocations import Target, revoke
from tests.support.members import Members
from tests.support.mutation import mutated
from tests.support.proxy import Proxy, open_proxy
from tests.support.servers import Server, dsn_with

NEVER = 3600.0  # seconds until the clock makes the feed look: only a notice can
SOON = 0.05


async def eventually(holds: Callable[[], bool]) -> None:
    """Waits until it does; the test's own timeout is the bound."""
    while not holds():
        await asyncio.sleep(0.005)


class Heard:
    """A feed, and what it keeps current."""

    def __init__(self, members: Members, dsn: str, *, interval: float, ttl: float = 60.0, timeout: float = 5.0) -> None:
        settings = members.databases.settings.model_copy(update={"placement_ttl": ttl})
        self.databases = members.databases
        self.placements = Placements(members.databases)
        self.revocations = Revocations()
        self.feed = RegistryFeed(dsn, settings, self.placements, self.revocations, interval=interval, timeout=timeout)

    def knows(self, token_id: str) -> bool:
        principal = Principal("platform", "ops", None, None, (), frozenset(), "tests", token_id, 2e9)
        try:
            self.revocations.check(principal, 1.0)
        except InvalidToken:
            return True
        return False

    @property
    def trusted(self) -> bool:
        try:
            return not self.knows("a token that nobody revokes")
        except RegistryUnavailable:
            return False

    async def revoke(self, token_id: str) -> None:
        await revoke(self.databases, Target("token", token_id=token_id), actor="tests")

    async def backend(self) -> int | None:
        """The process of the feed's connection on the server."""
        async with self.databases.registry() as session:
            connection = await session.connection()
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            found: int | None = await raw.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'control-plane feed'"
            )
            return found

    async def cut(self) -> None:
        async with self.databases.registry() as session:
            connection = await session.connection()
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.execute("SELECT pg_terminate_backend($1)", await self.backend())


Opening = Callable[..., Awaitable[Heard]]


@pytest_asyncio.fixture
async def opening(members: Members, registry_dsn: str) -> AsyncIterator[Opening]:
    """Starts a feed over the registry's address, or over another way to it."""
    opened: list[Heard] = []

    async def start(dsn: str = registry_dsn, **options: float) -> Heard:
        heard = Heard(members, dsn, **{"interval": NEVER, **options})
        opened.append(heard)
        await heard.feed.start()
        return heard

    yield start
    for heard in opened:
        await heard.feed.aclose()


@asynccontextmanager
async def proxied(server: Server, registry_dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy, and the registry's address through it."""
    async with open_proxy(server) as proxy:
        yield proxy, dsn_with(proxy.dsn, database=registry_dsn.partition("?")[0].rpartition("/")[2])


async def test_a_notice_makes_a_revocation_known_at_once(opening: Opening) -> None:
    heard = await opening()
    assert heard.feed.state == "ok"
    await heard.revoke("one")
    await eventually(lambda: heard.knows("one"))
    assert not heard.knows("two")


async def test_what_was_revoked_before_the_start_is_known_after_it(
    members: Members, registry_dsn: str, opening: Opening
) -> None:
    await Heard(members, registry_dsn, interval=NEVER).revoke("one")
    assert (await opening()).knows("one")


async def test_notices_that_are_lost_cost_a_revocation_no_more_than_the_interval(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RegistryFeed, "_hear", lambda *_: None)
    heard = await opening(interval=SOON)
    await heard.revoke("one")
    await eventually(lambda: heard.knows("one"))


async def test_the_stated_bound_leaves_room_for_a_look_that_hangs() -> None:
    assert feeds.INTERVAL + 2 * feeds.TIMEOUT + feeds.FIRST_PAUSE < feeds.LATE <= 30


async def test_a_connection_that_is_cut_is_replaced_and_everything_read_again(
    members: Members, opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notice that is sent while nobody listens is lost for good."""
    monkeypatch.setattr(RegistryFeed, "_hear", lambda *_: None)
    member = await members.add("acme")
    heard = await opening()
    await heard.placements.resolve(member.id)
    await heard.revoke("meanwhile")
    await members.record(member, epoch=7)
    before = await heard.backend()
    assert heard.placements.fresh(member.id) is not None
    await heard.cut()
    await eventually(lambda: heard.knows("meanwhile"))
    assert await heard.backend() not in (None, before)
    assert heard.placements.fresh(member.id) is None
    assert (await heard.placements.resolve(member.id)).epoch == 7


async def test_a_connection_that_hangs_is_found_out_and_replaced(
    server: Server, registry_dsn: str, opening: Opening
) -> None:
    """Half-open: nothing says that the other side is gone, not even an error."""
    async with proxied(server, registry_dsn) as (proxy, dsn):
        heard = await opening(dsn, interval=SOON, timeout=0.5)
        await eventually(lambda: heard.feed.state == "ok")
        proxy.paused.clear()
        await heard.revoke("meanwhile")
        connections = proxy.connections
        await eventually(lambda: proxy.connections > connections)
        proxy.paused.set()
        await eventually(lambda: heard.knows("meanwhile"))
        await heard.feed.aclose()


async def test_without_the_registry_tokens_are_good_for_as_long_as_placements_are(
    server: Server, registry_dsn: str, opening: Opening
) -> None:
    async with proxied(server, registry_dsn) as (proxy, dsn):
        heard = await opening(dsn, interval=SOON, timeout=0.2, ttl=0.2)  # so the bound is 2 seconds
        await heard.revoke("before")
        await eventually(lambda: heard.trusted and heard.knows("before"))
        looked_at = heard.feed._looked_at
        proxy.paused.clear()
        await eventually(lambda: not heard.trusted)
        assert heard.feed._clock() - looked_at >= 2.0
        assert heard.feed.state == "unknown"
        proxy.paused.set()
        await eventually(lambda: heard.trusted)
        assert heard.knows("before")
        await heard.feed.aclose()


async def test_a_registry_that_is_away_at_the_start_holds_nobody_up_and_lets_nobody_in(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "PATIENCE", 0.05)
    heard = await opening("postgresql://nobody@127.0.0.1:1/nothing")
    assert not heard.trusted
    assert heard.feed.state == "unknown"


async def test_a_registry_that_is_merely_slow_is_waited_for_longer_each_time(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    async def slow(*_: object, timeout: float, **__: object) -> asyncpg.Connection:
        asked.append(timeout)
        raise TimeoutError

    monkeypatch.setattr(feeds, "PATIENCE", 0.05)
    monkeypatch.setattr(feeds, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(feeds, "connect", slow)
    await opening()
    await eventually(lambda: len(asked) >= 6)
    assert asked[:6] == [5, 10, 20, 40, 60, 60]


async def test_a_change_of_a_placement_is_heard_and_no_other_change(members: Members, opening: Opening) -> None:
    acme, other = await members.add("acme"), await members.add("other", "schema")
    heard = await opening()
    for member in (acme, other):
        await heard.placements.resolve(member.id)
    told: list[tuple[str, str]] = []
    listener = await asyncpg.connect(heard.feed._dsn)
    try:
        for channel in (feeds.TENANT, feeds.HOME, feeds.REVOCATION):
            await listener.add_listener(channel, lambda _, __, channel, payload: told.append((channel, str(payload))))
        await update_tenant(members.databases, "acme", name="Acme", plan="team", actor="tests")
        await suspend_tenant(members.databases, "acme", actor="tests")
        await eventually(lambda: heard.placements.fresh(acme.id) is None)
        assert heard.placements.fresh(other.id) is not None
        async with members.databases.registry.begin() as session:
            (await session.get_one(Home, other.home.id)).pattern_version -= 1
        await eventually(lambda: heard.placements.fresh(other.id) is None)
        await eventually(lambda: len(told) == 2)
    finally:
        await listener.close()
    assert told == [(feeds.TENANT, str(acme.id)), (feeds.HOME, str(other.home.id))]


async def test_a_placement_is_kept_for_longer_only_while_notices_are_heard(members: Members, opening: Opening) -> None:
    member, heard, ttl = await members.add("acme"), await opening(), members.databases.settings.placement_ttl
    await heard.placements.resolve(member.id)
    entry = heard.placements._entries[member.id]
    assert entry.recheck_at - time.monotonic() > ttl
    await heard.feed.aclose()
    assert entry.recheck_at - time.monotonic() <= ttl


async def test_a_change_that_is_heard_costs_nothing_while_the_registry_is_away(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The placement of before is as good as any hint: the tenant's database decides."""
    member = await members.add("acme")
    placements = Placements(members.databases)
    known = await placements.resolve(member.id)

    async def away(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(Placements, "_read_registry", away)
    ways: list[Callable[[], None]] = [
        lambda: placements.expire(member.id),
        lambda: placements.expire_homes({member.home.id}),
        placements.expire_all,
    ]
    for expire in ways:
        expire()
        assert placements.fresh(member.id) is None
        assert await placements.resolve(member.id) is known


async def test_a_read_that_began_before_a_notice_is_not_believed(members: Members) -> None:
    member = await members.add("acme")
    ways: list[Callable[[Placements, UUID], None]] = [
        Placements.expire,
        lambda placements, _: placements.expire_all(),
        lambda placements, _: placements.expire_homes({uuid4()}),
    ]
    for expire in ways:
        placements = Placements(members.databases)
        early = asyncio.create_task(placements.resolve(member.id))
        await asyncio.sleep(0)
        while member.id not in placements._reading:
            await asyncio.sleep(0)
        expire(placements, member.id)
        await early
        assert placements.fresh(member.id) is None


async def test_absence_that_was_believed_ends_with_a_notice(members: Members) -> None:
    placements = Placements(members.databases)
    unknown: UUID = uuid4()
    with pytest.raises(Exception, match="no such tenant"):
        await placements.resolve(unknown)
    assert unknown in placements._entries
    placements.expire(unknown)
    assert unknown not in placements._entries


async def test_nonsense_on_a_channel_is_overheard(opening: Opening) -> None:
    heard = await opening()
    stranger = await asyncpg.connect(heard.feed._dsn)
    try:
        for channel in (feeds.TENANT, feeds.HOME, feeds.REVOCATION):
            await stranger.execute("SELECT pg_notify($1, 'nonsense')", channel)
    finally:
        await stranger.close()
    await heard.revoke("one")
    await eventually(lambda: heard.knows("one"))


async def test_a_feed_that_is_closed_leaves_no_connection(opening: Opening) -> None:
    heard = await opening()
    assert await heard.backend() is not None
    await heard.feed.aclose()
    while await heard.backend() is not None:
        await asyncio.sleep(0.005)


RED = (AssertionError, TimeoutError, pytest.fail.Exception)


async def test_a_feed_that_waits_for_notices_only_is_noticed(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 65: `only notices end a token`."""
    with mutated(RegistryFeed._wait, "asyncio.timeout(self._interval)", "asyncio.timeout(None)"), pytest.raises(RED):
        async with asyncio.timeout(0.5):
            await test_notices_that_are_lost_cost_a_revocation_no_more_than_the_interval(opening, monkeypatch)


async def test_a_feed_that_goes_on_where_it_was_cut_is_noticed(
    members: Members, opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack 38: `nothing is read again after a gap`."""
    with mutated(RegistryFeed._follow, "self._placements.expire_all()", "pass"), pytest.raises(RED):
        await test_a_connection_that_is_cut_is_replaced_and_everything_read_again(members, opening, monkeypatch)


async def test_a_feed_that_reads_no_revocations_is_noticed(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 44: `nobody reads the revocations`."""
    with mutated(RegistryFeed._look, "self._revocations.add(made)", "pass"), pytest.raises(RED):
        async with asyncio.timeout(0.5):
            await test_notices_that_are_lost_cost_a_revocation_no_more_than_the_interval(opening, monkeypatch)


async def test_a_feed_that_trusts_what_is_old_is_noticed(server: Server, registry_dsn: str, opening: Opening) -> None:
    """Attack 65: `old news of revocations are good for ever`."""
    with mutated(RegistryFeed._doubt, "self._revocations.trust(False)", "pass"), pytest.raises(RED):
        async with asyncio.timeout(3.0):
            await test_without_the_registry_tokens_are_good_for_as_long_as_placements_are(server, registry_dsn, opening)
