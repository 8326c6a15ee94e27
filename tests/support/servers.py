"""The PostgreSQL server that a test session runs on.

The embedded one by default; `CP_TEST_DATABASE_URL` names another (a role with CREATEROLE and CREATEDB that is no
superuser, as on managed PostgreSQL), or one for each worker of pytest-xdist, with spaces in between;
`CP_TEST_DOCKER=1` starts postgres:18 in a container.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID, uuid4

import asyncpg

from control_plane.embedded import EmbeddedServer
from control_plane.pools.connect import connect
from control_plane.testing.servers import FAST, MEMORY, dsn_with, require_managed_role, temporary_home

__all__ = ["FAST", "MEMORY", "Server", "dsn_with", "open_server", "temporary_home"]


class Server:
    """A server under an administrative role that is no superuser. Databases made here carry the session's name."""

    def __init__(self, dsn: str, *, lasting: bool, in_memory: bool = False) -> None:
        self.dsn = dsn  # to a maintenance database
        self.lasting = lasting  # outlives the session, so it must be left as it was
        self.in_memory = in_memory  # with all of its files
        self.session = f"test_{secrets.token_hex(4)}"
        self.installations: list[UUID] = []
        self._numbers = itertools.count(1)

    def dsn_for(self, database: str) -> str:
        return dsn_with(self.dsn, database=database)

    def new_installation(self) -> UUID:
        """The id of a new installation: roles are server-wide, so no two tests share one."""
        self.installations.append(uuid4())
        return self.installations[-1]

    @asynccontextmanager
    async def connection(self, database: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        opened = await connect(self.dsn, application_name="tests", database=database)
        try:
            yield opened
        finally:
            await opened.close()

    async def create_database(self, template: str | None = None) -> str:
        """A new database, a copy of `template` (its name) or empty; returns its name. It is never dropped in between:
        on many file systems creating files gets slow after many removals."""
        name = f"{self.session}_{next(self._numbers)}"
        copied = f' TEMPLATE "{template}" STRATEGY file_copy' if template else ""
        async with self.connection() as connection:
            await connection.execute(f'CREATE DATABASE "{name}"{copied}')
            await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        return name

    async def copy_database(self, source: str, name: str) -> None:
        """A database of an installation with the contents of another. By files: that is three times as fast as blocks
        by way of the log, on a server that has little to write back first."""
        async with self.connection() as connection:
            await connection.execute(
                f'CREATE DATABASE "{name}" TEMPLATE "{source}" STRATEGY file_copy OWNER cp_owner ALLOW_CONNECTIONS true'
            )
            await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')


@contextmanager
def open_server() -> Iterator[Server]:
    if given := _given():
        asyncio.run(require_managed_role(given))
        yield Server(given, lasting=True)
    elif os.environ.get("CP_TEST_DOCKER") == "1":
        with _docker() as dsn:
            yield Server(dsn, lasting=False)
    else:
        with temporary_home() as home, EmbeddedServer(home, settings=FAST) as embedded:
            dsn = dsn_with(embedded.admin_dsn, database="postgres")
            yield Server(dsn, lasting=False, in_memory=home.is_relative_to(MEMORY))


def _given() -> str | None:
    """The worker's own: tests look for what another leaves behind, so no two workers share a server."""
    given = os.environ.get("CP_TEST_DATABASE_URL", "").split()
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    if given and worker >= len(given):
        raise RuntimeError(f"CP_TEST_DATABASE_URL names {len(given)} servers; run no more workers: -n {len(given)}")
    return given[worker] if given else None


@contextmanager
def _docker() -> Iterator[str]:
    from testcontainers.postgres import PostgresContainer  # needs Docker at import

    password = secrets.token_urlsafe(24)
    options = " ".join(f"-c {name}={value}" for name, value in {**FAST, "max_connections": "200"}.items())
    container = PostgresContainer("postgres:18", driver=None, password=password).with_command(f"postgres {options}")
    with container:
        superuser = container.get_connection_url(driver=None)
        admin_password = secrets.token_urlsafe(24)
        asyncio.run(_create_admin(superuser, admin_password))
        yield dsn_with(superuser, user="cp_admin", password=admin_password, database="postgres")


async def _create_admin(superuser_dsn: str, password: str) -> None:
    connection = await connect(superuser_dsn, application_name="tests")
    try:
        await connection.execute(f"CREATE ROLE cp_admin LOGIN CREATEROLE CREATEDB PASSWORD '{password}'")
        await connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
        await connection.execute("GRANT CONNECT ON DATABASE postgres TO cp_admin")
    finally:
        await connection.close()
