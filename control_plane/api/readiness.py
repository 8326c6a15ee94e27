"""What `/readyz` reports: whether the registry and each cluster answer, and how old the news of revocations is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Literal

import asyncpg
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from control_plane.errors import ControlPlaneError
from control_plane.pools.connect import UNREACHABLE, connect
from control_plane.pools.databases import Databases
from control_plane.pools.feed import RegistryFeed
from control_plane.pools.feed import State as Revocations
from control_plane.registry.models import Cluster

ClusterState = Literal["ok", "unreachable", "not_ready"]

FRESH = 1.0  # seconds that an answer is reused, so that probes cannot become a load
TIMEOUT = 2.0  # seconds per server; a probe has to answer while a server hangs

_NO_ANSWER: tuple[type[BaseException], ...] = (SQLAlchemyError, asyncpg.PostgresError, ControlPlaneError, *UNREACHABLE)


@dataclass(frozen=True)
class State:
    registry: Literal["ok", "unreachable"]
    revocations: Revocations
    clusters: dict[str, ClusterState] = field(default_factory=dict)
    draining: bool = False

    @property
    def status(self) -> Literal["ready", "not_ready", "draining"]:
        """With the registry down known tenants are still served, until nobody knows which tokens were revoked."""
        if self.draining:
            return "draining"
        return "ready" if "ok" in self.clusters.values() and self.revocations != "unknown" else "not_ready"


class Readiness:
    """Single-flight: any number of probes cost one look per `FRESH` seconds."""

    def __init__(self, databases: Databases, feed: RegistryFeed) -> None:
        self._databases = databases
        self._feed = feed
        self._known: list[Cluster] = []
        self._state = State("unreachable", "unknown")
        self._looked = float("-inf")
        self._lock = asyncio.Lock()
        self._draining = False

    def drain(self) -> None:
        self._draining = True

    async def state(self) -> State:
        if not self._draining:  # which is said at once, with what was known last
            async with self._lock:
                if time.monotonic() - self._looked > FRESH:
                    self._state = await self._look()
                    self._looked = time.monotonic()
        return replace(self._state, draining=self._draining)

    async def _look(self) -> State:
        registry = await self._read_clusters()
        states = await asyncio.gather(*(self._probe(cluster) for cluster in self._known))
        found = {cluster.name: state for cluster, state in zip(self._known, states, strict=True)}
        return State(registry, self._feed.state, found)

    async def _read_clusters(self) -> Literal["ok", "unreachable"]:
        try:
            async with asyncio.timeout(TIMEOUT), self._databases.registry() as session:
                self._known = list(await session.scalars(select(Cluster).order_by(Cluster.name)))
        except _NO_ANSWER:
            return "unreachable"
        return "ok"

    async def _probe(self, cluster: Cluster) -> ClusterState:
        try:
            async with asyncio.timeout(TIMEOUT):
                connection = await connect(
                    self._databases.box.open(cluster.dsn),
                    application_name="control-plane readiness",
                    database=cluster.database,
                    timeout=TIMEOUT,
                )
                try:
                    ready = await connection.fetchval("SELECT tenancy.ready()")
                finally:
                    connection.terminate()
        except asyncpg.PostgresError:
            return "not_ready"
        except _NO_ANSWER:
            return "unreachable"
        return "ok" if ready else "not_ready"
