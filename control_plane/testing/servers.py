"""The PostgreSQL that tests run on: an embedded one that is thrown away, or a server that is left as it was."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from control_plane.embedded import EmbeddedServer
from control_plane.errors import ConfigurationError
from control_plane.pools.connect import connect

# A crash of the machine may lose a test's data.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
}
MEMORY = Path("/dev/shm")  # noqa: S108 - the directory made in it is new and private
ROOM_IN_MEMORY = 12 * 2**30  # bytes; a run of a large suite needs less than half of it


@contextmanager
def open_server(url: str | None) -> Iterator[str]:
    """The DSN of an administrative role on the maintenance database of a server: `url`, or an embedded one.

    Raises `ConfigurationError` for a role that could not be a managed server's, or that lacks a right.
    """
    if url:
        asyncio.run(require_managed_role(url))
        yield url
    else:
        with temporary_home() as home, EmbeddedServer(home, settings=FAST) as embedded:
            yield dsn_with(embedded.admin_dsn, database="postgres")


async def require_managed_role(dsn: str) -> None:
    """A superuser would pass isolation tests that everybody else fails, and fail others."""
    connection = await connect(dsn, application_name="control-plane testing")
    try:
        role = await connection.fetchrow(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = session_user"
        )
    finally:
        await connection.close()
    if role is None or tuple(role) != (False, False, True, True):
        raise ConfigurationError(
            "CP_TEST_DATABASE_URL must name a role with CREATEROLE and CREATEDB, without SUPERUSER and BYPASSRLS.",
            hint="CREATE ROLE tester LOGIN CREATEROLE CREATEDB PASSWORD '…'",
        )


def dsn_with(dsn: str, *, user: str | None = None, password: str | None = None, database: str | None = None) -> str:
    """`dsn` (a URL) with another role or database."""
    parts = urlsplit(dsn)
    netloc = parts.netloc
    if user is not None:
        netloc = f"{user}:{password or ''}@{netloc.rpartition('@')[2]}"
    path = parts.path if database is None else f"/{database}"
    # Not urlunsplit, which drops the slashes of an empty authority.
    return f"{parts.scheme}://{netloc}{path}" + (f"?{parts.query}" if parts.query else "")


@contextmanager
def temporary_home(prefix: str = "cp-tests-") -> Iterator[Path]:
    """A CP_HOME that is removed afterwards. pytest's tmp_path is closed to the account that root hands over to."""
    parent = Path(tempfile.mkdtemp(prefix=prefix, dir=_roomiest()))
    parent.chmod(0o711)
    try:
        yield parent / "home"
    finally:
        shutil.rmtree(parent)


def _roomiest() -> Path:
    """Memory where there is plenty: databases come and go, each a thousand files."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_IN_MEMORY
    return MEMORY if in_memory else Path(tempfile.gettempdir())
