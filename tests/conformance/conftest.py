"""The conformance fixtures: every test that takes `world` runs once per isolation mode."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings
from control_plane.templates import Template, Templates
from tests.conformance.world import World, build_world, copy_world
from tests.support.cleaning import drop_installation
from tests.support.originals import Originals
from tests.support.servers import Server

MODES = ("shared", "schema", "database")


class Ground:
    """Worlds on the session's server; the conformance suite needs no registry, only names and passwords."""

    def __init__(self, server: Server, originals: Originals, databases: Databases) -> None:
        self.server = server
        self.originals = originals
        self.databases = databases
        self.template: Template = Templates.load(databases.settings.templates)["reference"]
        self._kept: dict[str, World] = {}
        self._originals: dict[tuple[str, int], World] = {}
        self._worlds: list[tuple[weakref.ref[World], UUID]] = []

    async def kept(self, mode: str) -> World:
        """The session's world of a mode, which pytest would set up anew whenever it comes to another mode or module."""
        if mode not in self._kept:
            self._kept[mode] = await self.build(mode, self.template.latest)
        return self._kept[mode]

    async def world(self, mode: str, version: int | None = None) -> World:
        """Two tenants that the caller may break, but for their login roles, which others have too."""
        version = version or self.template.latest
        if (mode, version) not in self._originals:
            self._originals[mode, version] = await self.build(mode, version)
        world = await copy_world(self._originals[mode, version], self.server)
        self._worlds.append((weakref.ref(world), world.installation_id))
        return world

    async def build(self, mode: str, version: int) -> World:
        """Two tenants whose login roles are theirs alone, which costs a second."""
        installation_id = self.server.new_installation()
        database = await self.originals.prepare(self.databases, installation_id)
        cluster = Cluster(
            id=uuid4(), name="main", dsn=self.databases.box.seal(self.server.dsn), database=database, status="active"
        )
        world = await build_world(
            self.databases, cluster, self.server.dsn, installation_id, self.template, mode, version
        )
        self._worlds.append((weakref.ref(world), installation_id))
        return world

    async def sweep(self) -> None:
        """Drop the worlds that nothing refers to any more: each is ten megabytes or more."""
        gone = [installation_id for world, installation_id in self._worlds if world() is None]
        self._worlds = [(world, installation_id) for world, installation_id in self._worlds if world() is not None]
        for installation_id in gone:
            await drop_installation(self.server, installation_id)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ground(server: Server, originals: Originals) -> AsyncIterator[Ground]:
    settings = Settings.model_validate({"home": Path("unused"), "secret_key": "k" * 32})
    databases = Databases(server.dsn, SecretBox("k" * 32), settings, keep=0)  # tests have loops of their own
    yield Ground(server, originals, databases)
    await databases.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def swept(ground: Ground) -> AsyncIterator[None]:
    """After each module."""
    yield
    await ground.sweep()


@pytest.fixture(params=MODES, scope="session")
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(ground: Ground, mode: str) -> World:
    """Two tenants at the latest version. Tests leave it as they found it."""
    return await ground.kept(mode)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_world(ground: Ground) -> World:
    """Two tenants in shared tables, for what only row-level security has to hold."""
    return await ground.kept("shared")


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["schema", "database"])
async def dedicated_world(ground: Ground, request: pytest.FixtureRequest) -> World:
    """Two tenants with homes, and login roles, of their own."""
    return await ground.kept(request.param)


@pytest_asyncio.fixture
async def scratch(ground: Ground, mode: str) -> World:
    """Two tenants that the test may break."""
    return await ground.world(mode)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ground_partition(ground: Ground) -> World:
    """A shared home with a partitioned table, stamped as a template version would be."""
    world = await ground.world("shared", version=2)
    script = ground.template.script(2, 3).message(world.a.home.id, world.a.schema, 2)
    table = f"""
        SET LOCAL search_path = "{world.a.schema}", extensions, pg_temp;
        CREATE TABLE tb_event (
            tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
            id uuid NOT NULL DEFAULT gen_random_uuid(),
            name text,
            PRIMARY KEY (tenant_id, id)
        ) PARTITION BY HASH (tenant_id);
        CREATE TABLE tb_event_0 PARTITION OF tb_event FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        SELECT tenancy.protect_table('tb_event');
    """
    async with world.admin(world.a) as connection:
        await connection.execute(script.replace("SET LOCAL ROLE NONE", f"{table}; SET LOCAL ROLE NONE"))
    return world
