"""SQLAlchemy sessions for an application's own SQL, each for one tenant.

One engine for all homes, so that every statement is compiled once. It keeps no connection: `RequestPools` does, under
its budget, and a session asks for the home of its own tenant. SQLAlchemy prepares a statement once per loan and no
longer. A loan ends with its transaction, which holds locks on what it has read, so no migration can change a table
under a prepared statement.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any
from weakref import finalize

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from control_plane.errors import ControlPlaneError, StaleEpoch, TenantMoving
from control_plane.pools import gate
from control_plane.pools.budget import Lease
from control_plane.pools.connect import borrowing_engine
from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools

MISPLACED = frozenset({"TN404", "TN409"})
TRANSACTION_OPTIONS = ("isolation_level", "postgresql_readonly", "postgresql_deferrable")

# For whom the engine's next connection is; set right before one may be needed. It stays when none was, but not beyond
# its session.
_borrower: ContextVar[_Borrower | None] = ContextVar("borrower", default=None)


class TenantSessions:
    """`async with sessions.open(caller) as session:`"""

    def __init__(self, pools: RequestPools, placements: Placements) -> None:
        self._pools = pools
        self._placements = placements
        self._engine = borrowing_engine(self._borrow)
        # Not the session's `after_begin`: that one is skipped by who takes a connection from the session's engine, and
        # a failure in it leaves the session with a connection that works and is not bound.
        event.listen(self._engine.sync_engine, "begin", self._bind)
        event.listen(self._engine.sync_engine, "before_cursor_execute", _require_transaction)

    def open(self, caller: gate.Caller) -> AsyncSession:
        """A session that works for `caller`, whose epoch is not looked at, until it is closed; then it is of no use.

        It borrows a connection with its first statement and gives it back with each commit or rollback. Statements
        raise what SQLAlchemy raises, and for want of a connection `PoolExhausted`, `ClusterUnavailable`,
        `RegistryUnavailable`, `TenantNotFound`, `TenantNotReady` or `TenantMoving`.
        """
        return AsyncSession(
            sync_session_class=_TenantSession,
            engine=self._engine.sync_engine,
            caller=caller,
            expire_on_commit=False,
            close_resets_only=False,
        )

    async def aclose(self) -> None:
        await self._engine.dispose()

    async def _borrow(self) -> _Loan:
        borrower = _borrower.get()
        _borrower.set(None)
        caller = None if borrower is None else borrower.caller
        if caller is None:
            raise ControlPlaneError("A connection was asked for, and not for a tenant.", hint="Use a TenantSession.")
        try:
            return await self._lend(caller)
        except StaleEpoch:
            self._placements.forget(caller.tenant_id)
        try:
            return await self._lend(caller)
        except StaleEpoch as error:
            raise TenantMoving from error

    async def _lend(self, caller: gate.Caller) -> _Loan:
        placement = self._placements.fresh(caller.tenant_id) or await self._placements.resolve(caller.tenant_id)
        lease = self._pools.take(placement) or await self._pools.wait(placement)
        return _Loan(self._pools, lease, caller._replace(epoch=placement.epoch))

    def _bind(self, connection: Connection) -> None:
        try:
            if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
                raise ControlPlaneError("A tenant's statements need a transaction: AUTOCOMMIT is not possible.")
            try:
                _bind_loan(connection)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in MISPLACED:
                    raise
                self._relocate(connection)
                _bind_loan(connection)
        except BaseException:
            connection.close()  # one that is not bound is of no use to anybody
            raise

    def _relocate(self, connection: Connection) -> None:
        """Look up the tenant again and let `connection` go on there, with what its transaction was to be."""
        caller = _loan(connection).caller
        self._placements.forget(caller.tenant_id)
        connection.invalidate()
        _borrower.set(_Borrower(caller))
        options = connection.get_execution_options()
        connection.execution_options(**{name: options[name] for name in TRANSACTION_OPTIONS if name in options})


def _bind_loan(connection: Connection) -> None:
    _loan(connection).bound = False  # of an earlier transaction
    gate.bind(connection, _loan(connection).caller)
    _loan(connection).bound = True


def _require_transaction(connection: Connection, *_: Any) -> None:
    """A COMMIT as text ends the transaction and with it the context; the next statement would run for nobody."""
    loan = _loan(connection)
    if loan.bound and not loan.is_in_transaction():
        raise ControlPlaneError(
            "The transaction of a tenant's session was ended by a statement.",
            hint="Call session.commit() or session.rollback(); begin_nested() makes a savepoint.",
        )


def _loan(connection: Connection) -> _Loan:
    loan = connection.connection.driver_connection
    assert isinstance(loan, _Loan)
    return loan


class _Borrower:
    """In whose name a session asks for connections: in nobody's when it is closed."""

    __slots__ = ("caller",)

    def __init__(self, caller: gate.Caller) -> None:
        self.caller: gate.Caller | None = caller


class _TenantSession(Session):
    """Asks for connections in the name of its caller."""

    def __init__(self, *, engine: Engine, caller: gate.Caller, **options: Any) -> None:
        super().__init__(**options)
        self._engine = engine
        self._borrower = _Borrower(caller)

    def get_bind(self, *_: Any, **__: Any) -> Engine:
        _borrower.set(self._borrower)
        return self._engine

    def close(self) -> None:
        self._borrower.caller = None
        super().close()


class _Loan:
    """An asyncpg connection whose closing gives it back."""

    def __init__(self, pools: RequestPools, lease: Lease, caller: gate.Caller) -> None:
        self.caller = caller
        self.bound = False  # to the tenant, by the transaction that is under way
        self._pools = pools
        self._lease = lease
        # SQLAlchemy forgets a connection when it is cancelled while setting it up.
        self._forgotten = finalize(self, _reclaim, asyncio.get_running_loop(), pools, lease)

    def __getattr__(self, name: str) -> Any:
        if not self._forgotten.alive:
            raise ControlPlaneError("The connection was given back.")
        return getattr(self._lease.connection, name)

    def is_closed(self) -> bool:
        return not self._forgotten.alive or self._lease.connection.is_closed()

    async def close(self, *, timeout: float | None = None) -> None:
        if self._forgotten.detach():
            self._pools.put_back(self._lease, None)

    def terminate(self) -> None:
        if self._forgotten.detach():
            self._pools.discard(self._lease)


def _reclaim(loop: asyncio.AbstractEventLoop, pools: RequestPools, lease: Lease) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(pools.discard, lease)
