"""Where each tenant lives: a cache over the registry. A hint only; the tenant's database decides on every request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from control_plane.errors import ClusterUnavailable, RegistryUnavailable, TenantNotFound, TenantNotReady
from control_plane.pools.databases import Databases
from control_plane.registry.models import Home, Tenant

logger = logging.getLogger(__name__)

MAX_TENANTS = 100_000
HEARD_TTLS = 10  # while the registry's notices are heard, a placement is read again after this many times its TTL
STALE_TTLS = 10  # with the registry down, a placement serves for this many times its TTL
RETRY_SECONDS = 2.0  # between attempts on a registry that is down
READ_TIMEOUT = 3.0  # seconds; a registry that hangs is a registry that is down
ABSENT_SECONDS = 1.0  # how long "no such tenant" is believed


@dataclass(frozen=True, slots=True)
class Placement:
    """A tenant's home, as the registry had it `read_at` (monotonic seconds)."""

    tenant_id: UUID
    home_id: UUID
    cluster_id: UUID
    isolation: str
    schema_name: str
    template: str
    pattern_version: int
    epoch: int
    status: str
    read_at: float


class _Entry:
    __slots__ = ("placement", "recheck_at")

    def __init__(self, placement: Placement | None, recheck_at: float) -> None:
        self.placement = placement  # None: the registry knows no such tenant
        self.recheck_at = recheck_at


class Placements:
    """`placements.fresh(tenant_id) or await placements.resolve(tenant_id)`."""

    def __init__(
        self,
        databases: Databases,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_tenants: int = MAX_TENANTS,
    ) -> None:
        self._databases = databases
        self._ttl = databases.settings.placement_ttl
        self._clock = clock
        self._max_tenants = max_tenants
        self._hears = False
        self._heard_at = float("-inf")  # what changed in the registry before has been heard of
        self._entries: dict[UUID, _Entry] = {}
        self._reading: dict[UUID, asyncio.Task[Placement]] = {}

    def fresh(self, tenant_id: UUID) -> Placement | None:
        """The cached placement while it needs no second look. No I/O."""
        entry = self._entries.get(tenant_id)
        return entry.placement if entry is not None and self._clock() < entry.recheck_at else None

    async def resolve(self, tenant_id: UUID) -> Placement:
        """The placement, read from the registry unless it is fresh; concurrent callers share one read.

        Raises `TenantNotFound`, `TenantNotReady`, or `RegistryUnavailable` when nothing usable is cached.
        """
        entry = self._entries.get(tenant_id)
        if entry is not None and self._clock() < entry.recheck_at:
            if entry.placement is None:
                raise TenantNotFound
            return entry.placement
        return await self._read_once(tenant_id)

    async def refresh(self, placement: Placement, older_than: float = 1.0) -> Placement:
        """Read again what is older than `older_than` seconds: an API version may have arrived since."""
        if self._clock() - placement.read_at < older_than:
            return placement
        self.forget(placement.tenant_id)
        try:
            return await self.resolve(placement.tenant_id)
        except RegistryUnavailable:
            self._entries.setdefault(placement.tenant_id, _Entry(placement, self._clock() + RETRY_SECONDS))
            return placement

    def forget(self, tenant_id: UUID) -> None:
        """Drop what is cached, and what a read in flight is about to bring: it may predate the change."""
        self._entries.pop(tenant_id, None)
        self._reading.pop(tenant_id, None)

    def hear(self) -> None:
        """Every change that the registry has told of until now is known here, and the next ones will be.

        Then the clock has little to find out: a fleet of fifty thousand active tenants would have it ask for nothing
        all day.
        """
        self._hears, self._heard_at = True, self._clock()

    def stop_hearing(self) -> None:
        """From now on changes may be missed: nothing is kept for longer than its TTL."""
        self._hears = False
        latest = self._clock() + self._ttl
        for entry in self._entries.values():
            entry.recheck_at = min(entry.recheck_at, latest)

    def expire(self, tenant_id: UUID) -> None:
        """Read the registry again before the next use, because it was changed.

        Unlike `forget` this keeps the old placement for the time that the registry is away: whether it still holds is
        for the tenant's database to say.
        """
        self._expire(tenant_id)
        self._reading.pop(tenant_id, None)

    def expire_homes(self, home_ids: Container[UUID]) -> None:
        """As `expire`, for all tenants of these homes."""
        for tenant_id, entry in list(self._entries.items()):
            if entry.placement is not None and entry.placement.home_id in home_ids:
                self._expire(tenant_id)
        self._reading.clear()  # nobody knows to which homes those reads will lead

    def expire_all(self) -> None:
        """As `expire`, because changes may have been missed."""
        for tenant_id in list(self._entries):
            self._expire(tenant_id)
        self._reading.clear()

    def _expire(self, tenant_id: UUID) -> None:
        entry = self._entries.get(tenant_id)
        if entry is not None and entry.placement is None:
            del self._entries[tenant_id]
        elif entry is not None:
            entry.recheck_at = self._clock()

    async def _read_once(self, tenant_id: UUID) -> Placement:
        task = self._reading.get(tenant_id)
        if task is None:
            task = asyncio.create_task(self._read(tenant_id))
            self._reading[tenant_id] = task
            task.add_done_callback(lambda done: self._finished(tenant_id, done))
        # Shielded: the first caller's cancellation must not fail the others.
        return await asyncio.shield(task)

    def _finished(self, tenant_id: UUID, task: asyncio.Task[Placement]) -> None:
        if self._reading.get(tenant_id) is task:
            del self._reading[tenant_id]
        if not task.cancelled():
            task.exception()  # retrieved here, since all callers may have been cancelled

    async def _read(self, tenant_id: UUID) -> Placement:
        task = asyncio.current_task()
        try:
            placement = await self._read_registry(tenant_id)
        except TenantNotFound:
            self._store(tenant_id, task, None, ABSENT_SECONDS)
            raise
        except (SQLAlchemyError, ClusterUnavailable, OSError, TimeoutError) as error:
            return self._stale(tenant_id, error)
        self._store(tenant_id, task, placement, self._ttl * (HEARD_TTLS if self._hears else 1))
        return placement

    def _store(
        self, tenant_id: UUID, task: asyncio.Task[Placement] | None, placement: Placement | None, seconds: float
    ) -> None:
        if self._reading.get(tenant_id) is not task:
            return  # forgotten meanwhile
        self._entries.pop(tenant_id, None)
        self._entries[tenant_id] = _Entry(placement, self._clock() + seconds)
        if len(self._entries) > self._max_tenants:
            del self._entries[next(iter(self._entries))]  # the one read longest ago

    def _stale(self, tenant_id: UUID, error: Exception) -> Placement:
        entry, now = self._entries.get(tenant_id), self._clock()
        if entry is None or entry.placement is None:
            raise RegistryUnavailable from error
        if now - max(entry.placement.read_at, self._heard_at) > STALE_TTLS * self._ttl:
            raise RegistryUnavailable from error
        logger.warning("registry unavailable, serving tenant %s from cache: %s", tenant_id, type(error).__name__)
        entry.recheck_at = now + RETRY_SECONDS
        return entry.placement

    async def _read_registry(self, tenant_id: UUID) -> Placement:
        query = (
            select(
                Tenant.status,
                Tenant.epoch,
                Home.id,
                Home.cluster_id,
                Home.isolation,
                Home.schema_name,
                Home.template,
                Home.pattern_version,
                Home.ready,
            )
            .outerjoin(Home, Home.id == Tenant.home_id)
            .where(Tenant.id == tenant_id)
        )
        read_at = self._clock()
        async with asyncio.timeout(READ_TIMEOUT), self._databases.registry() as session:
            row = (await session.execute(query)).one_or_none()
        if row is None or row.status in ("deleting", "deleted"):
            raise TenantNotFound
        if row.status == "provisioning" or row.id is None or not row.ready:
            raise TenantNotReady
        return Placement(
            tenant_id=tenant_id,
            home_id=row.id,
            cluster_id=row.cluster_id,
            isolation=row.isolation,
            schema_name=row.schema_name,
            template=row.template,
            pattern_version=row.pattern_version,
            epoch=row.epoch,
            status=row.status,
            read_at=read_at,
        )
