"""A template's extensions reach every database that gets or has homes of it, or the operator is told why not."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from control_plane.errors import ExtensionUnavailable
from control_plane.isolation import isolation_of
from control_plane.isolation.extensions import extension_faults, install_extensions
from control_plane.isolation.template_database import template_database_name
from control_plane.migrator import HomeResult, Options, migrate_all
from control_plane.pools.connect import connect
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home, Tenant
from control_plane.settings import Settings
from control_plane.templates import Template, Templates
from control_plane.tenants.diagnosis import diagnose
from tests.support.fleet import Fleet
from tests.support.servers import Server

MODES = ("shared", "schema", "database")
LATER = 4  # a version that needs no extension by itself, after 3, which those of a release before may have
WHERE = "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = $1"


def needing(template: Template, *extensions: str) -> Template:
    """The template with another list of extensions."""
    return Template(template.manifest.model_copy(update={"extensions": extensions}), template.versions)


@pytest.fixture
def template(settings: Settings) -> Template:
    return Templates.load(settings.templates)["reference"]


@pytest.fixture
def fleet(databases: Databases, cluster: Cluster, installation_id: UUID, template: Template) -> Fleet:
    """Its homes are built as by a release that needed no extension yet."""
    return Fleet(databases, cluster, installation_id, needing(template))


async def where(fleet: Fleet, home: Home, extension: str) -> str | None:
    async with fleet.admin(home) as connection:
        schema: str | None = await connection.fetchval(WHERE, extension)
        return schema


async def migrate(fleet: Fleet, template: Template) -> dict[str, HomeResult]:
    outcomes: dict[str, HomeResult] = {}

    def listen(event: object) -> None:
        if isinstance(event, HomeResult):
            outcomes[event.label] = event

    await migrate_all(fleet.databases, template, Options(target=LATER), listener=listen)
    return outcomes


@pytest.mark.parametrize("mode", MODES)
async def test_a_new_home_finds_the_extension_on_its_path(
    fleet: Fleet, server: Server, template: Template, mode: str
) -> None:
    fleet.template = needing(template, "ltree")
    home = await fleet.add("acme", mode, version=1)
    assert await where(fleet, home, "ltree") == "extensions"
    connection = await connect(
        server.dsn,
        application_name="tests",
        database=home.database,
        user=home.role_name,
        password=fleet.databases.box.open(home.password),
    )
    try:
        # As a request, on the path that the login role has of itself.
        assert await connection.fetchval("SELECT 'a.b.c'::ltree <@ 'a.b'::ltree") is True
    finally:
        await connection.close()
    async with fleet.admin(home) as admin:
        for role in ("cp_owner", "cp_definer", "cp_request", home.role_name):
            assert await admin.fetchval("SELECT has_schema_privilege($1, 'extensions', 'USAGE')", role), role


@pytest.mark.parametrize("mode", MODES)
async def test_a_home_of_an_earlier_release_gets_the_extension_when_it_is_migrated(
    fleet: Fleet, template: Template, mode: str
) -> None:
    home = await fleet.add("acme", mode, version=3)
    assert await where(fleet, home, "ltree") is None
    outcomes = await migrate(fleet, needing(template, "ltree", "btree_gist"))
    assert [outcome.status for outcome in outcomes.values()] == ["done"]
    assert await where(fleet, home, "ltree") == "extensions"
    assert await where(fleet, home, "btree_gist") == "extensions"


@pytest.mark.parametrize("mode", MODES)
async def test_a_tenant_that_a_release_overtook_while_it_was_made_gets_the_extension(
    fleet: Fleet, template: Template, mode: str
) -> None:
    home = await fleet.add("acme", mode, version=1)
    later = needing(template, "ltree")
    await isolation_of(mode).upgrade(fleet.databases, fleet.cluster, home, later, 1, LATER)
    assert await where(fleet, home, "ltree") == "extensions"
    assert await fleet.version(home) == LATER


async def test_another_list_of_extensions_makes_another_template_database(fleet: Fleet, template: Template) -> None:
    names = {template_database_name(fleet.cluster, needing(template, *each), 1) for each in ((), ("ltree",))}
    assert len(names) == 2
    before = await fleet.add("before", "database", version=1)
    fleet.template = needing(template, "ltree")
    after = await fleet.add("after", "database", version=1)
    assert [await where(fleet, home, "ltree") for home in (before, after)] == [None, "extensions"]


async def test_many_may_install_at_once(fleet: Fleet, template: Template) -> None:
    async def install() -> None:
        async with fleet.admin() as connection:
            await install_extensions(connection, needing(template, "ltree", "btree_gist"))

    await asyncio.gather(*(install() for _ in range(6)))
    async with fleet.admin() as connection:
        assert await connection.fetchval(WHERE, "ltree") == "extensions"


@pytest.mark.parametrize(
    ("extension", "problem", "hint"),
    [
        ("no_such_extension", "is not available on the server", "install the package"),
        ("file_fdw", "can only be installed by a superuser", "CREATE EXTENSION file_fdw SCHEMA extensions"),
    ],
)
async def test_an_extension_that_cannot_be_had_is_named(
    fleet: Fleet, template: Template, extension: str, problem: str, hint: str
) -> None:
    await fleet.add("before", version=1)
    later = needing(template, extension)
    outcome = (await migrate(fleet, later))["before"]
    assert (outcome.status, outcome.attempts) == ("failed", 1)
    assert f"'{extension}', which the template 'reference' needs, {problem}" in (outcome.error or "")
    assert hint in (outcome.error or "")
    for mode in MODES:
        home = isolation_of(mode).new_home(fleet.installation_id, fleet.cluster, "reference", fleet.databases.box)
        tenant = Tenant(slug="acme", name="Acme", isolation=mode)
        with pytest.raises(ExtensionUnavailable, match=problem) as raised:
            await isolation_of(mode).build(fleet.databases, fleet.cluster, home, tenant, later, 1)
        assert hint in (raised.value.hint or "")


async def test_an_extension_in_another_schema_is_found_out(fleet: Fleet, template: Template) -> None:
    home = await fleet.add("acme", version=3)
    async with fleet.admin() as connection:
        await connection.execute("CREATE EXTENSION ltree SCHEMA public")
    later = needing(template, "ltree")
    outcome = (await migrate(fleet, later))["acme"]
    assert outcome.status == "failed"
    assert "stands in the schema public" in (outcome.error or "")
    troubles = {(trouble.code, trouble.object): trouble.fix for trouble in await diagnose(fleet.databases)}
    assert "DROP EXTENSION ltree" in troubles["extension", "ltree"]

    async with fleet.admin() as connection:
        await connection.execute("DROP EXTENSION ltree")
    assert (await migrate(fleet, later))["acme"].status == "done"
    assert await fleet.version(home) == LATER
    assert "extension" not in {trouble.code for trouble in await diagnose(fleet.databases)}


async def test_nothing_is_wrong_with_an_extension_that_is_there_or_may_be_installed(fleet: Fleet) -> None:
    async with fleet.admin() as connection:
        assert await extension_faults(connection, ["plpgsql"]) != []  # in pg_catalog, where nobody moves it to
        assert await extension_faults(connection, ["ltree"]) == []
        await connection.execute("CREATE EXTENSION ltree SCHEMA extensions")
        assert await extension_faults(connection, ["ltree"]) == []
