"""asyncpg connections for an application's own SQL, each for one tenant and one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from control_plane.errors import ControlPlaneError, StaleEpoch, TenantMoving
from control_plane.pools import gate
from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools

MISPLACED = frozenset({"TN404", "TN409"})


class BoundConnection:
    """An asyncpg connection inside a tenant's transaction: `fetch`, `execute`, `transaction` (a savepoint) and so on.

    Of no use after the transaction, however that ends: what runs behind a COMMIT would run for nobody.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection: asyncpg.Connection | None = connection

    def __getattr__(self, name: str) -> Any:
        if self._connection is None or not self._connection.is_in_transaction():
            raise ControlPlaneError("The transaction of this tenant's connection has ended.")
        return getattr(self._connection, name)

    def end(self) -> None:
        self._connection = None


class TenantConnections:
    """`async with connections.begin(caller) as connection:`"""

    def __init__(self, pools: RequestPools, placements: Placements) -> None:
        self._pools = pools
        self._placements = placements

    @asynccontextmanager
    async def begin(self, caller: gate.Caller) -> AsyncIterator[BoundConnection]:
        """A transaction of `caller`, whose epoch is not looked at; commits at the end, or rolls back on an exception.

        The block begins when the tenant's database has agreed. Raises what asyncpg raises, and `PoolExhausted`,
        `ClusterUnavailable`, `RegistryUnavailable`, `TenantNotFound`, `TenantNotReady` or `TenantMoving`;
        `ControlPlaneError` for a caller without a tenant or a user, and for a block that has ended its transaction.
        """
        if not all((caller.tenant_id, caller.user_id)):
            raise ControlPlaneError("A connection was asked for, and not for a tenant and a user.")
        async with AsyncExitStack() as stack:
            connection = await self._enter(stack, caller)
            bound = BoundConnection(connection)
            try:
                yield bound
                if not connection.is_in_transaction():
                    raise ControlPlaneError("The transaction of a tenant was ended in the middle of its block.")
            finally:
                bound.end()

    async def _enter(self, stack: AsyncExitStack, caller: gate.Caller) -> asyncpg.Connection:
        try:
            return await stack.enter_async_context(self._bound(caller))
        except StaleEpoch:
            pass
        except asyncpg.PostgresError as error:
            if error.sqlstate not in MISPLACED:
                raise
        self._placements.forget(caller.tenant_id)
        try:
            return await stack.enter_async_context(self._bound(caller))
        except StaleEpoch as error:
            raise TenantMoving from error

    @asynccontextmanager
    async def _bound(self, caller: gate.Caller) -> AsyncIterator[asyncpg.Connection]:
        placement = self._placements.fresh(caller.tenant_id) or await self._placements.resolve(caller.tenant_id)
        async with self._pools.connection(placement) as connection, connection.transaction():
            await connection.fetchval(gate.BIND, *caller._replace(epoch=placement.epoch), False)
            yield connection
