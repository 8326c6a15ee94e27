"""Fixtures on a real PostgreSQL. A worker of pytest-xdist has a server of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import delete

from control_plane.embedded import EmbeddedServer
from control_plane.pools.connect import registry_engine
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Installation
from control_plane.registry.secrets import SecretBox
from control_plane.registry.upgrade import upgrade
from control_plane.settings import Settings
from tests.support.cleaning import clean, drop_installation
from tests.support.originals import Originals
from tests.support.registries import Registries
from tests.support.servers import FAST, Server, dsn_with, open_server, temporary_home

SECRET_KEY = "a secret key of the tests, long enough"
SIGNING_KEY = "a signing key of the tests, long enough"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The session's PostgreSQL: `.dsn` of the administrative role, `.dsn_for(database)`, `.create_database()`."""
    with open_server() as opened:
        yield opened
        if opened.lasting:
            asyncio.run(clean(opened))


@pytest.fixture(scope="session")
def second_server() -> Iterator[Server]:
    """Another PostgreSQL, always an embedded one, to be the second cluster."""
    with temporary_home() as home, EmbeddedServer(home, settings=FAST) as embedded:
        yield Server(dsn_with(embedded.admin_dsn, database="postgres"), lasting=False)


@pytest_asyncio.fixture
async def database(server: Server) -> str:
    """The DSN of a new, empty database."""
    return server.dsn_for(await server.create_database())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def registry_template(server: Server) -> str:
    """The name of a database with the registry's migrations applied, to be copied."""
    name = await server.create_database()
    engine = registry_engine(server.dsn_for(name))
    await upgrade(engine)
    await engine.dispose()
    return name


@pytest.fixture(scope="session")
def registries(server: Server, registry_template: str) -> Registries:
    return Registries(server, registry_template)


@pytest.fixture(scope="session")
def originals(server: Server) -> Originals:
    return Originals(server)


@pytest_asyncio.fixture
async def registry_dsn(server: Server, registries: Registries) -> AsyncIterator[str]:
    """The DSN of a registry, migrated and empty, that no other test uses at the same time."""
    name = await registries.take()
    yield server.dsn_for(name)
    await registries.give_back(name)


@pytest.fixture
def settings(registry_dsn: str, tmp_path: Path) -> Settings:
    """Settings for a new registry, whatever the environment says: `model_validate` does not read it."""
    given = {"home": tmp_path, "database_url": registry_dsn, "secret_key": SECRET_KEY, "signing_key": SIGNING_KEY}
    return Settings.model_validate(given)


@pytest_asyncio.fixture
async def databases(registry_dsn: str, settings: Settings) -> AsyncIterator[Databases]:
    """A new registry and the connections of its installation."""
    opened = Databases(registry_dsn, SecretBox(SECRET_KEY), settings)
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture
async def installation_id(server: Server, databases: Databases) -> AsyncIterator[UUID]:
    """The id of a new installation, in the registry."""
    installation = Installation(id=server.new_installation())
    async with databases.registry.begin() as session:
        await session.execute(delete(Installation))
        session.add(installation)
    yield installation.id
    await databases.aclose()
    await drop_installation(server, installation.id)


@pytest_asyncio.fixture
async def cluster(server: Server, originals: Originals, databases: Databases, installation_id: UUID) -> Cluster:
    """The session's server, prepared for this test's installation and registered as cluster `main`."""
    registered = Cluster(
        id=uuid4(),
        name="main",
        dsn=databases.box.seal(server.dsn),
        database=await originals.prepare(databases, installation_id),
        isolations=["shared", "schema", "database"],
        status="active",
    )
    async with databases.registry.begin() as session:
        session.add(registered)
    return registered
