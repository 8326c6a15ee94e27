"""The only place where connections to PostgreSQL are opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from control_plane.errors import ClusterUnavailable, InvalidInput

# Failures to reach a server, as opposed to failures of a statement.
UNREACHABLE: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server said good-bye, and the next statement came before the socket closed
)
# Before 1.21 PgBouncer gives every complaint one SQLSTATE; these are about the role or the database, not about itself.
_REFUSALS = ("no such user", "no such database", "authentication failed", "does not exist")
# Whatever a connection or its server may answer with.
BROKEN: tuple[type[BaseException], ...] = (asyncpg.PostgresError, *UNREACHABLE)


async def connect(
    dsn: str,
    *,
    application_name: str,
    database: str | None = None,
    user: str | None = None,
    password: str | None = None,
    timeout: float = 10.0,
    server_settings: dict[str, str] | None = None,
    **options: Any,
) -> asyncpg.Connection:
    """Open one connection; `database`, `user` and `password` take the place of the DSN's.

    Raises `ClusterUnavailable` when the server cannot be reached within `timeout` seconds, also by the pooler at that
    address, and `InvalidInput` for a malformed DSN; what asyncpg raises when it refuses.
    """
    try:
        opened: asyncpg.Connection = await asyncpg.connect(
            dsn,
            database=database,
            user=user,
            password=password,
            timeout=timeout,
            server_settings={"application_name": application_name, **(server_settings or {})},
            **options,
        )
    except ValueError as error:
        # asyncpg's own complaint may quote the password.
        hint = "postgresql://role:password@host/database"
        raise InvalidInput("The connection string is not valid.", hint=hint) from error
    except UNREACHABLE as error:
        raise ClusterUnavailable(details=type(error).__name__) from error
    except asyncpg.ProtocolViolationError as error:
        if any(refusal in str(error) for refusal in _REFUSALS):
            raise asyncpg.InvalidAuthorizationSpecificationError(str(error)) from error
        raise ClusterUnavailable(details=type(error).__name__) from error
    return opened


def registry_engine(dsn: str) -> AsyncEngine:
    """The engine of the registry. The DSN goes to asyncpg as it is, so every libpq parameter works.

    A process that is paused within a transaction loses it after a minute: others wait for its rows.
    """
    settings = {"jit": "off", "idle_in_transaction_session_timeout": "60s"}

    async def open_connection() -> asyncpg.Connection:
        return await connect(dsn, application_name="control-plane registry", server_settings=settings)

    return create_async_engine(
        "postgresql+asyncpg://", async_creator=open_connection, pool_size=10, max_overflow=10, pool_pre_ping=True
    )


def borrowing_engine(borrow: Callable[[], Awaitable[Any]]) -> AsyncEngine:
    """An engine that keeps no connection: it calls `borrow` for each, and closes what it got to give it back."""
    return create_async_engine("postgresql+asyncpg://", async_creator=borrow, poolclass=NullPool)
