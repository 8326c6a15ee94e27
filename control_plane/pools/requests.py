"""Connections for requests, each as the login role of the tenant's home and no other.

Not asyncpg's own pool: its release starts a task each time, and pools that do not know each other cannot share one
budget. Nothing resets the session between requests, which would be a second round trip. That is safe only because these
connections run the fixed statements of `gate` under roles without TEMP and CREATE; now and then one is inspected.
Pools for an application's own SQL are opened with `full_reset`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from control_plane.errors import (
    ClusterUnavailable,
    ControlPlaneError,
    PoolExhausted,
    RegistryUnavailable,
    StaleEpoch,
    Unavailable,
)
from control_plane.pools.budget import Budget, HomePool, Lease, Slot, Target, Waiter
from control_plane.pools.connect import BROKEN, connect
from control_plane.pools.databases import Databases
from control_plane.pools.placement import Placement
from control_plane.pools.session_state import INSPECT, LIBRARY, POOLER_SETTINGS, PooledConnection, ResetConnection
from control_plane.registry.models import Cluster, Home, Tenant
from control_plane.settings import Settings

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0  # seconds
CLOSE_TIMEOUT = 5.0  # seconds, in which a cancelled statement has to acknowledge
INSPECT_EVERY = 1000  # uses of a connection
_REGISTRY_FAILURES = (SQLAlchemyError, ClusterUnavailable, OSError, TimeoutError)
_CLOSING = "The service is shutting down."
MAX_HOMES = 10_000  # homes whose credential is remembered without a connection


class RequestPools:
    """`async with pools.connection(placement) as connection:`

    `full_reset`: the statements are an application's own, so the session is made new after each use, and nothing is
    prepared beyond it. The next user waits for that, the last one does not.
    """

    def __init__(self, databases: Databases, settings: Settings, *, full_reset: bool = False) -> None:
        self._databases = databases
        self._settings = settings
        self._full_reset = full_reset
        self._homes: dict[UUID, HomePool] = {}
        self._budgets: dict[UUID, Budget] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: set[Waiter] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def connection(self, placement: Placement) -> Borrowed:
        """A connection of the placement's home, until the block ends.

        Raises `PoolExhausted`, `ClusterUnavailable`, `RegistryUnavailable`, or `StaleEpoch` when the home is gone or
        refuses its login role.
        """
        return Borrowed(self, placement)

    def open_connections(self, cluster_id: UUID) -> int:
        budget = self._budgets.get(cluster_id)
        return 0 if budget is None else budget.open

    async def aclose(self) -> None:
        """Close what is idle now and the rest as it comes back; whoever waits is refused."""
        self._closed = True
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(Unavailable(_CLOSING))
        if self._sweep is not None:
            self._sweep.cancel()
        for budget in self._budgets.values():
            for lease in budget.drain():
                self.discard(lease)
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def take(self, placement: Placement) -> Lease | None:
        home = self._homes.get(placement.home_id)
        return None if home is None or self._closed else home.budget.take_idle(home, placement.tenant_id)

    async def wait(self, placement: Placement) -> Lease:
        if self._closed:
            raise Unavailable(_CLOSING)
        home = self._homes.get(placement.home_id) or self._add_home(placement)
        granted = home.budget.take_slot(home, placement.tenant_id) or await self._queue(home, placement.tenant_id)
        return granted if isinstance(granted, Lease) else await self._open(granted)

    def put_back(self, lease: Lease, error: BaseException | None) -> None:
        lease.uses += 1
        if self._closed or not _reusable(lease.connection, error):
            self.discard(lease)
        elif self._full_reset:
            self._start(self._reset(lease))
        elif lease.uses % INSPECT_EVERY == 0:
            self._start(self._inspect(lease))
        else:
            lease.home.budget.give_back(lease, time.monotonic())

    def _add_home(self, placement: Placement) -> HomePool:
        budget = self._budgets.get(placement.cluster_id)
        if budget is None:
            budget = self._budgets[placement.cluster_id] = Budget(
                self._settings.cluster_connections, self._settings.tenant_queue
            )
        shared = placement.isolation == "shared"
        size = self._settings.shared_pool_size if shared else self._settings.dedicated_pool_size
        home = HomePool(placement.home_id, budget, min(size, budget.limit), shared=shared)
        self._homes[placement.home_id] = home
        if self._sweep is None:
            self._schedule_sweep()
        return home

    async def _queue(self, home: HomePool, tenant_id: UUID) -> Lease | Slot:
        waiter = home.budget.queue(home, tenant_id)
        if waiter is None:
            raise PoolExhausted
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(self._settings.acquire_timeout):
                return await waiter.future
        except BaseException as error:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._decline(waiter.future.result())  # granted in the moment of giving up
            home.budget.leave(waiter)
            if isinstance(error, TimeoutError):
                raise PoolExhausted from None
            raise
        finally:
            self._waiters.discard(waiter)

    def _decline(self, granted: Lease | Slot) -> None:
        if isinstance(granted, Slot):
            self._start(self._close_victim(granted))
        elif self._closed:
            self.discard(granted)
        else:
            granted.home.budget.give_back(granted, time.monotonic())

    async def _close_victim(self, slot: Slot) -> None:
        if slot.victim is not None:
            await _close(slot.victim.connection)
        slot.line.home.budget.free(slot.line.home, slot.line)

    async def _open(self, slot: Slot) -> Lease:
        home = slot.line.home
        try:
            if slot.victim is not None:
                await _close(slot.victim.connection)
            return Lease(await self._connect(home), slot.line)
        except BaseException:
            home.budget.free(home, slot.line)
            raise

    async def _connect(self, home: HomePool) -> asyncpg.Connection:
        target = await self._target(home)
        try:
            return await self._login(home, target)
        except ClusterUnavailable:
            if target.pooled and not await self._is_served(
                home.home_id
            ):  # a pooler says the same of a dropped database
                raise StaleEpoch from None
            raise
        except asyncpg.PostgresError as error:
            # Role or database gone: the tenant has been dropped or moved, or somebody should look.
            logger.warning("home %s refuses its login role: SQLSTATE %s", home.home_id, error.sqlstate)
            raise StaleEpoch from error

    async def _login(self, home: HomePool, target: Target) -> asyncpg.Connection:
        # A pooler lets those wait for whose database it finds no server: that tells nothing of other homes.
        async with (home.breaker if target.pooled else home.budget.breaker).login():
            try:
                return await self._dial(target)
            except asyncpg.InvalidAuthorizationSpecificationError:  # 28P01 is one of these
                return await self._dial(await self._target(home, other_than=target))

    async def _dial(self, target: Target) -> asyncpg.Connection:
        return await connect(
            target.dsn,
            application_name=LIBRARY if self._full_reset else "control-plane request",
            database=target.database,
            user=target.role,
            password=target.password,
            timeout=CONNECT_TIMEOUT,
            server_settings=POOLER_SETTINGS if target.pooled else {"jit": "off"},
            # The role's statement_timeout answers first; this is for a server that no longer answers.
            command_timeout=self._settings.statement_timeout + 1.0,
            connection_class=self._connection_class(target),
            statement_cache_size=0 if self._full_reset or target.pooled else 256,
            max_cached_statement_lifetime=0,
        )

    def _connection_class(self, target: Target) -> type[asyncpg.Connection]:
        if target.pooled:
            return PooledConnection
        return ResetConnection if self._full_reset else asyncpg.Connection

    async def _target(self, home: HomePool, other_than: Target | None = None) -> Target:
        """Read again what is older than a placement may be: the cluster's pooler may be another."""
        async with home.lock:
            known, now = home.target, time.monotonic()
            if known is not None and known[0] != other_than and now - known[1] < self._settings.placement_ttl:
                return known[0]
            try:
                target = await self._read_target(home.home_id)
            except RegistryUnavailable:
                if known is None or known[0] == other_than:
                    raise
                target = known[0]
            home.target = target, now
            return target

    async def _is_served(self, home_id: UUID) -> bool:
        """Whether the registry has a tenant at the home; without the registry, yes."""
        query = select(Tenant.id).where(Tenant.home_id == home_id, Tenant.status.not_in(("deleting", "deleted")))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT), self._databases.registry() as session:
                return await session.scalar(query.limit(1)) is not None
        except _REGISTRY_FAILURES:
            return True

    async def _read_target(self, home_id: UUID) -> Target:
        query = (
            select(Home, Cluster.dsn, Cluster.pooler)
            .join(Cluster, Cluster.id == Home.cluster_id)
            .where(Home.id == home_id)
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT), self._databases.registry() as session:
                row = (await session.execute(query)).one_or_none()
        except _REGISTRY_FAILURES as error:
            raise RegistryUnavailable from error
        if row is None:
            raise StaleEpoch
        home, dsn, pooler = row
        box = self._databases.box
        return Target(
            dsn=pooler or box.open(dsn),
            pooled=pooler is not None,
            database=home.database,
            role=home.role_name,
            password=box.open(home.password),
            generation=home.credential_generation,
        )

    def discard(self, lease: Lease) -> None:
        """Close instead of giving back; the slot is free when the server has let go."""
        if lease.connection.is_closed():
            lease.home.budget.free(lease.home, lease.line)
        else:
            self._start(self._close_lease(lease))

    async def _close_lease(self, lease: Lease) -> None:
        await _close(lease.connection)
        lease.home.budget.free(lease.home, lease.line)

    async def _inspect(self, lease: Lease) -> None:
        try:
            clean = await lease.connection.fetchval(INSPECT)
        except BROKEN:
            clean = False
        if clean and not self._closed:
            lease.home.budget.give_back(lease, time.monotonic())
            return
        if not self._closed:
            logger.error("a session of home %s kept state between requests; closing it", lease.home.home_id)
        await self._close_lease(lease)

    async def _reset(self, lease: Lease) -> None:
        try:
            await lease.connection.reset(timeout=CLOSE_TIMEOUT)
        except BROKEN:
            await self._close_lease(lease)
            return
        if self._closed:
            await self._close_lease(lease)
        else:
            lease.home.budget.give_back(lease, time.monotonic())

    def _schedule_sweep(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(self._settings.pool_idle_seconds / 2, self._run_sweep)

    def _run_sweep(self) -> None:
        idle_before = time.monotonic() - self._settings.pool_idle_seconds
        for budget in self._budgets.values():
            for lease in budget.expired(idle_before):
                self.discard(lease)
        if len(self._homes) > MAX_HOMES:
            unused = [home for home in self._homes.values() if home.open == 0 and not home.queue]
            for home in unused[: len(self._homes) - MAX_HOMES]:
                del self._homes[home.home_id]
        self._schedule_sweep()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Borrowed:
    """A class rather than a generator: this is entered on every request."""

    __slots__ = ("_lease", "_placement", "_pools")

    def __init__(self, pools: RequestPools, placement: Placement) -> None:
        self._pools = pools
        self._placement = placement

    async def __aenter__(self) -> asyncpg.Connection:
        self._lease = self._pools.take(self._placement) or await self._pools.wait(self._placement)
        return self._lease.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pools.put_back(self._lease, error)


def _reusable(connection: asyncpg.Connection, error: BaseException | None) -> bool:
    """Whether the next request may have this connection: only after a statement that ended, in whatever way."""
    if connection.is_closed() or connection.is_in_transaction():
        return False
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate == "57014" or (error.sqlstate or "")[:2] not in ("08", "57")
    return error is None or isinstance(error, ControlPlaneError)


async def _close(connection: asyncpg.Connection) -> None:
    """Close, waiting until a statement being cancelled has acknowledged, so that the slot is free when it says so."""
    try:
        await connection.close(timeout=CLOSE_TIMEOUT)
    except BROKEN:
        connection.terminate()
