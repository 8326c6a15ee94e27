"""Connections to a legacy database, and the one command at a time that an adoption has."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

import asyncpg

from control_plane.errors import (
    AdoptionConflict,
    AdoptionRefused,
    ClusterUnavailable,
    ControlPlaneError,
    InvalidInput,
    TimedOut,
)
from control_plane.pools.connect import UNREACHABLE, connect

# The text of a value must not depend on whose session wrote it: documents are compared.
_SESSION = """
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';
SET bytea_output = 'hex';
SET extra_float_digits = 1;
SET jit = off;
SET lock_timeout = '{lock_timeout}ms';
SET search_path = pg_catalog, pg_temp
"""


@asynccontextmanager
async def open_legacy(dsn: str, *, lock_timeout: float = 2.0) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the role of `dsn`; `lock_timeout` in seconds.

    Raises `ClusterUnavailable`, `InvalidInput` for a connection string that is refused, and turns what the database
    answers meanwhile into `AdoptionRefused` or `TimedOut`: whoever reads it operates that database.
    """
    try:
        connection = await connect(dsn, application_name="control-plane adopt")
    except ClusterUnavailable as error:
        raise ClusterUnavailable("The legacy database cannot be reached.", details=error.details) from error
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
        raise InvalidInput("The server refuses the connection string's role, password or database.") from error
    try:
        with legacy_errors():
            await connection.execute(_SESSION.format(lock_timeout=int(lock_timeout * 1000)))
            for name in ("json", "jsonb"):
                await connection.set_type_codec(name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
            yield connection
    finally:
        await connection.close()


async def lock_adoption(connection: asyncpg.Connection, adoption_id: UUID) -> None:
    """Held until the connection ends, however it ends. Raises `AdoptionConflict` when another command holds it."""
    key = f"control_plane.adoption:{adoption_id}"
    if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", key):
        raise AdoptionConflict("Another command is at work on this adoption.", hint="Wait for it, then try again.")


@contextmanager
def legacy_errors() -> Iterator[None]:
    """Raise what the legacy database answered as an error of ours, with its own words as details."""
    try:
        yield
    except ControlPlaneError:
        raise
    except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError) as error:
        raise TimedOut("The legacy database did not give a lock in time.", hint="Try again.") from error
    except UNREACHABLE as error:
        raise ClusterUnavailable(
            "The connection to the legacy database was lost.",
            details=type(error).__name__,
            hint="Run the same command again: it goes on where it was.",
        ) from error
    except asyncpg.DependentObjectsStillExistError as error:
        raise AdoptionRefused(
            "Something else stands on what should be dropped.",
            details=error.detail or str(error),
            hint="Drop or change that first; nothing was done.",
        ) from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise AdoptionRefused(
            "The role of the connection string may not do this.",
            details=str(error),
            hint="It needs CREATEROLE, CREATE on the database, and to be the owner of the tables or a member of it.",
        ) from error
    except asyncpg.PostgresError as error:
        details = " ".join(part for part in (str(error), error.detail) if part)
        raise AdoptionRefused(f"The legacy database refuses this ({error.sqlstate}).", details=details) from error
