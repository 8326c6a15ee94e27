"""A fleet from version 1 to the last one: step by step or in one leap, it ends the same, and no promise is broken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from control_plane.isolation.cluster import prepare_cluster
from control_plane.migrator import Options, migrate_all
from control_plane.migrator.comparison import compare
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings
from tests.conformance.conftest import MODES
from tests.conformance.world import World
from tests.conftest import SECRET_KEY
from tests.support.members import Member, Members
from tests.support.reference_calls import CALLS, Life
from tests.support.registries import Registries
from tests.support.servers import Server
from tests.support.structure import difference, structure
from tests.support.tenant_calls import tenant_calls

Documents = list[dict[str, Any]]
KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}


@dataclass
class Promise:
    """What documents have shown of a value: its kinds, the fields of every object, the kind of an array's elements."""

    kinds: set[str] = field(default_factory=set)
    fields: dict[str, Promise] | None = None
    elements: Promise | None = None

    def learn(self, value: object) -> None:
        self.kinds.add(KINDS.get(type(value), "null"))
        if isinstance(value, dict):
            if self.fields is None:
                self.fields = {key: Promise() for key in value}
            self.fields = {key: promise for key, promise in self.fields.items() if key in value}
            for key, promise in self.fields.items():
                promise.learn(value[key])
        elif isinstance(value, list):
            self.elements = self.elements or Promise()
            for each in value:
                self.elements.learn(each)

    def breaches(self, value: object, path: str = "$") -> Iterator[str]:
        """Where `value` is not what was promised. What has only been null so far may turn out to be anything."""
        kind = KINDS.get(type(value), "null")
        if kind not in self.kinds and self.kinds not in (set(), {"null"}):
            yield f"{path} is {kind}, promised as {sorted(self.kinds)}"
        elif isinstance(value, dict):
            for key, promise in (self.fields or {}).items():
                if key in value:
                    yield from promise.breaches(value[key], f"{path}.{key}")
                else:
                    yield f"{path}.{key} is missing"
        elif isinstance(value, list) and self.elements is not None:
            for number, each in enumerate(value):
                yield from self.elements.breaches(each, f"{path}[{number}]")


@dataclass
class Fleet:
    """One installation with one tenant per mode, and what has been promised to its callers."""

    members: Members
    tenants: dict[str, Member]
    saved: dict[str, dict[str, str]] = field(default_factory=dict)
    promises: dict[tuple[str, int, str], Promise] = field(default_factory=dict)

    async def migrate(self, target: int) -> None:
        result = await migrate_all(self.members.databases, self.members.template, Options(target=target))
        assert (result.status, result.done) == ("done", len(MODES))

    async def live(self, *versions: int) -> None:
        """Every tenant makes the calls of `versions`; the service has just been started."""
        async with tenant_calls(self.members) as calls:
            for mode, member in self.tenants.items():
                life = Life(calls, member)
                life.saved = self.saved.setdefault(mode, {})
                for version in versions:
                    for call in CALLS[version]:
                        await life.make(call, version)

    async def read(self, version: int) -> dict[tuple[str, int, str], Documents]:
        """Every document of every resource of every API version, by mode, API version and resource."""
        found: dict[tuple[str, int, str], Documents] = {}
        template = self.members.template
        async with tenant_calls(self.members) as calls:
            for mode, member in self.tenants.items():
                life = Life(calls, member)
                life.saved = self.saved[mode]
                for api in template.api_versions(version):
                    for name, declared in template.manifest.resources.items():
                        if declared.since <= version and (declared.api is None or api in declared.api):
                            found[mode, api, name] = (await life.rows(f"/api/v{api}/{name}")).json()
        return found

    async def structures(self) -> dict[str, dict[str, str]]:
        found = {}
        for mode, member in self.tenants.items():
            databases, cluster = self.members.databases, self.members.cluster
            async with databases.admin(cluster, member.home.database) as connection:
                found[mode] = await structure(connection, member.home.id)
                assert await connection.fetch("SELECT * FROM tenancy.isolation_faults($1)", member.home.id) == []
        return found


@asynccontextmanager
async def fleet_at_version_1(server: Server, registries: Registries, settings: Settings) -> AsyncIterator[Fleet]:
    """With a registry and an installation of its own, because a cluster has one shared home."""
    name = await registries.take()
    databases = Databases(server.dsn_for(name), SecretBox(SECRET_KEY), settings)
    installation_id = server.new_installation()
    cluster = Cluster(
        id=uuid4(),
        name="main",
        dsn=databases.box.seal(server.dsn),
        database=await prepare_cluster(databases, server.dsn, installation_id),
        isolations=list(MODES),
        status="active",
    )
    try:
        async with databases.registry.begin() as session:
            session.add(cluster)
        members = Members(databases, cluster, installation_id)
        yield Fleet(members, {mode: await members.add(f"acme-{mode}", mode, version=1) for mode in MODES})
    finally:
        await databases.aclose()
        await registries.give_back(name)


@pytest.mark.timeout(300)
async def test_step_by_step_and_in_one_leap_end_the_same(
    server: Server, registries: Registries, settings: Settings
) -> None:
    """Rows are there at each step, made by the functions that the version has brought."""
    async with (
        fleet_at_version_1(server, registries, settings) as stepping,
        fleet_at_version_1(server, registries, settings) as leaping,
    ):
        latest = stepping.members.template.latest
        await stepping.live(1)
        for version in range(1, latest + 1):
            if version > 1:
                await stepping.migrate(version)
                await stepping.live(version)
            for key, documents in (await stepping.read(version)).items():
                promise = stepping.promises.get(key)
                if promise is None:  # this API version has just got this resource
                    promise = stepping.promises[key] = Promise()
                    for document in documents:
                        promise.learn(document)
                require(promise, documents, version, key)

        await leaping.live(1)
        before = await leaping.read(1)
        await leaping.migrate(latest)
        after = await leaping.read(latest)
        for key, documents in before.items():
            assert after[key] == documents, f"{key}: what version 1 showed has changed"
        await leaping.live(*range(2, latest + 1))
        for key, documents in (await leaping.read(latest)).items():
            require(stepping.promises[key], documents, latest, key)

        stepped, leapt = await stepping.structures(), await leaping.structures()
        for mode in MODES:
            assert difference(stepped[mode], leapt[mode]) == {}, mode
        for fleet in (stepping, leaping):
            compared = await compare(fleet.members.databases, {"reference": fleet.members.template})
            assert [str(found) for home in compared.differing for found in home.differences] == []
            assert compared.compared == len(MODES)
        # A schema of one's own and a database of one's own hold the same, too.
        assert difference(stepped["schema"], stepped["database"]) == {}


def require(promise: Promise, documents: Documents, version: int, key: tuple[str, int, str]) -> None:
    assert documents, f"{key} has no rows at version {version}"
    for document in documents:
        assert list(promise.breaches(document)) == [], f"{key} at version {version}: {document}"


@pytest.mark.parametrize(
    ("promised", "found", "breach"),
    [
        ([{"a": 1}], {"a": 2, "b": None}, None),
        ([{"a": 1}], {"b": 1}, "$.a is missing"),
        ([{"a": 1}], {"a": "1"}, "$.a is string, promised as ['number']"),
        ([{"a": 1}], {"a": None}, "$.a is null, promised as ['number']"),
        ([{"a": 1}, {"a": None}], {"a": None}, None),
        ([{"a": None}], {"a": True}, None),
        ([{"a": {"b": 1}}], {"a": {}}, "$.a.b is missing"),
        ([{"a": [{"b": 1}]}], {"a": [{"b": []}]}, "$.a[0].b is array, promised as ['number']"),
        ([{"a": []}], {"a": [1]}, None),
        ([{"a": 1, "b": 1}, {"a": 1}], {"a": 1}, None),
    ],
)
def test_a_broken_promise_is_seen(promised: Documents, found: dict[str, Any], breach: str | None) -> None:
    promise = Promise()
    for document in promised:
        promise.learn(document)
    assert list(promise.breaches(found)) == ([breach] if breach else [])


@pytest.mark.parametrize(
    "ddl",
    [
        "ALTER TABLE tb_user ALTER name SET DEFAULT 'x'",
        "ALTER TABLE tb_user ALTER bio DROP NOT NULL",
        "ALTER TABLE tb_user ADD CHECK (bio <> 'x')",
        "ALTER TABLE tb_user DISABLE ROW LEVEL SECURITY",
        "CREATE INDEX ON tb_user (tenant_id, name)",
        "DROP POLICY owner_access ON tb_user",
        "GRANT TRUNCATE ON tb_user TO cp_definer",
        "CREATE OR REPLACE VIEW v_user_card AS SELECT tenant_id, id, '{}'::jsonb AS data FROM tb_user",
        "ALTER FUNCTION fn_create_user(jsonb) SECURITY DEFINER",
        "CREATE TRIGGER t BEFORE UPDATE ON tb_user FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "COMMENT ON VIEW v_user IS 'x'",
    ],
)
async def test_a_difference_of_structure_is_seen(shared_world: World, ddl: str) -> None:
    world = shared_world
    async with world.admin(world.a) as connection:
        before = await structure(connection, world.a.home.id)
        transaction = connection.transaction()
        await transaction.start()
        path = f'"{world.a.schema}", extensions, pg_temp'
        await connection.execute(f"SET LOCAL ROLE cp_owner; SET LOCAL search_path = {path}")
        await connection.execute(ddl)
        await connection.execute("SET LOCAL ROLE NONE")
        assert difference(await structure(connection, world.a.home.id), before) != {}
        await transaction.rollback()
        assert await structure(connection, world.a.home.id) == before
