"""Every example on a page of docs/patterns, and on that about the tenant API, does what the page says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import delete

from control_plane.api.app import create_app
from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_tenant_token
from control_plane.isolation.cluster import prepare_cluster
from control_plane.pools.connect import connect
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home, Installation, Tenant
from control_plane.registry.secrets import SecretBox
from control_plane.service import ControlPlane
from control_plane.settings import Settings
from tests.conftest import SECRET_KEY, SIGNING_KEY
from tests.support.callers import client, open_plane, platform_headers
from tests.support.pages import API, Block, HttpRun, matches, read_page, run_sql, statements
from tests.support.registries import Registries
from tests.support.servers import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATTERNS = Path(__file__).resolve().parents[2] / "docs" / "patterns"
PAGES = sorted(PATTERNS.glob("[0-9][0-9]-*.md"))
EXAMPLES = [*PAGES, PATTERNS.parent / "tenant-api.md"]
ROW = re.compile(r"^\| (\d+) \| [^|]+ \| (\w*) ?\| (?:\[[^|]+\]\(([^|)]+)\))? ?\|$", re.MULTILINE)
ADA = ("ada@example.com", "Ada")  # the caller of all examples


@dataclass
class Reader:
    """The caller's tokens for one tenant."""

    plane: ControlPlane
    tenant_id: UUID
    user_id: UUID

    def headers(self, roles: Sequence[str]) -> dict[str, str]:
        token = mint_tenant_token(development_issuer(self.plane.settings), self.tenant_id, self.user_id, roles)
        return {"Authorization": f"Bearer {token}"}


@dataclass
class Application:
    """The service, opened once for all pages."""

    plane: ControlPlane
    app: FastAPI

    async def onboard(self, slug: str, isolation: str) -> tuple[Tenant, Home]:
        async with client(self.app, platform_headers(self.plane)) as platform:
            body = {"slug": slug, "name": slug, "isolation": isolation}
            made = await platform.post("/tenants", json=body)
            assert made.status_code == 201, made.text
        async with self.plane.databases.registry() as session:
            tenant = await session.get_one(Tenant, UUID(made.json()["id"]))
            return tenant, await session.get_one(Home, tenant.home_id)

    async def connect(self, home: Home) -> asyncpg.Connection:
        """As the home's request role."""
        databases = self.plane.databases
        async with databases.registry() as session:
            cluster = await session.get_one(Cluster, home.cluster_id)
        dsn, password = databases.box.open(cluster.dsn), databases.box.open(home.password)
        return await connect(
            dsn, application_name="tests", database=home.database, user=home.role_name, password=password
        )


async def enter(connection: asyncpg.Connection, tenant: Tenant, home: Home, user_id: UUID) -> None:
    """The tenant's context, with the caller as one of its users."""
    await connection.execute("SELECT tenancy.set_tenant_context($1, $2)", tenant.id, user_id)
    path = f'"{home.schema_name}__api_v{API}", "{home.schema_name}", extensions, pg_temp'
    await connection.execute(f"SET LOCAL search_path = {path}")
    await connection.execute("INSERT INTO tb_user (id, email, name) VALUES ($1, $2, $3)", user_id, *ADA)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def application(
    server: Server, registries: Registries, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Application]:
    dsn = server.dsn_for(await registries.take())
    given = {
        "home": tmp_path_factory.mktemp("pages"), "database_url": dsn, "secret_key": SECRET_KEY,
        "signing_key": SIGNING_KEY,
    }  # fmt: skip
    settings = Settings.model_validate(given)
    databases = Databases(dsn, SecretBox(SECRET_KEY), settings)
    installation = Installation(id=server.new_installation())
    cluster = Cluster(
        id=uuid4(),
        name="main",
        dsn=databases.box.seal(server.dsn),
        database=await prepare_cluster(databases, server.dsn, installation.id),
        isolations=["shared", "schema", "database"],
        status="active",
    )
    async with databases.registry.begin() as session:
        await session.execute(delete(Installation))
        session.add_all([installation, cluster])
    await databases.aclose()
    async with open_plane(settings) as plane:
        yield Application(plane, create_app(plane))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reading(application: Application) -> tuple[Tenant, Home]:
    """The tenant in a schema of its own whose context SQL examples run in."""
    return await application.onboard("sql-examples", "schema")


@pytest_asyncio.fixture(loop_scope="module")
async def context(application: Application, reading: tuple[Tenant, Home]) -> AsyncIterator[asyncpg.Connection]:
    """A transaction of the caller, undone afterwards."""
    connection = await application.connect(reading[1])
    transaction = connection.transaction()
    await transaction.start()
    try:
        await enter(connection, *reading, uuid4())
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def calls(application: Application) -> AsyncIterator[HttpRun]:
    """The caller of a new tenant in shared tables."""
    tenant, home = await application.onboard(f"page-{uuid4().hex[:8]}", "shared")
    connection = await application.connect(home)
    user_id = uuid4()
    async with connection.transaction():
        await enter(connection, tenant, home, user_id)
    await connection.close()
    async with client(application.app) as opened:
        yield HttpRun(opened, Reader(application.plane, tenant.id, user_id), {"caller": str(user_id)})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_the_sql_examples_of_a_page_run(page: Path, context: asyncpg.Connection) -> None:
    await run_sql(read_page(page), context)


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
async def test_the_http_examples_of_a_page_run(page: Path, calls: HttpRun) -> None:
    await calls.run(read_page(page))


def rows() -> dict[int, str]:
    """The table of docs/patterns/README.md: number → the page that is linked, or nothing."""
    found = ROW.findall((PATTERNS / "README.md").read_text(encoding="utf-8"))
    return {int(number): link for number, _, link in found}


async def test_every_pattern_has_a_page_and_every_page_is_linked() -> None:
    assert list(rows()) == list(range(1, 25))
    assert sorted(rows().values()) == [page.name for page in PAGES]
    for number, link in rows().items():
        assert link.startswith(f"{number:02}-")


async def test_the_versions_of_the_table_exist() -> None:
    versions = {path.name for path in PATTERNS.parents[1].glob("tenant_templates/reference/versions/*")}
    named = {version for _, version, _ in ROW.findall((PATTERNS / "README.md").read_text(encoding="utf-8")) if version}
    assert named <= versions


def page_of(tmp_path: Path, text: str) -> list[Block]:
    path = tmp_path / "example.md"
    path.write_text(text, encoding="utf-8")
    return read_page(path)


SQL_PAGE = """
```sql
-- A comment; with a semicolon.
INSERT INTO tb_project (name) VALUES ('One; two');
SELECT count(*) FROM tb_project;
-- => 1
SELECT data FROM projects;
-- => {"name": "One; two", "owner": null, "id": "…"}
SELECT name FROM tb_project WHERE name <> $$no;
$$;
-- => One; two
SELECT tenancy.current_roles();
-- => []
```

```sql error=23514
INSERT INTO tb_project (name) VALUES ('');
```

<!-- roles = admin, editor -->
```sql
SELECT count(*) FROM tb_project;
-- => 1
SELECT to_jsonb(tenancy.current_roles());
-- => ["admin", "…"]
```
"""
HTTP_PAGE = """
```http
POST /api/v2/rpc/create_project

{"name": "One", "owner_id": "{{caller}}"}
```
```json
{"success": true, "data": {"project": {"name": "One", "owner": {"name": "Ada"}, "id": "…"}}}
```
<!-- save project = data.project.id -->
Text in between.

```http
GET /api/v2/projects/{{project}}
```
```json
{"id": "{{project}}", "member_count": 1}
```

```http
POST /api/v2/rpc/rename_project
{"id": "{{caller}}", "name": "Two"}
```
```json 404
{"success": false, "code": "not_found"}
```

```http
GET /api/v2/projects
```
```json
[{"name": "One"}]
```
"""


async def test_sql_that_is_right_passes(tmp_path: Path, context: asyncpg.Connection) -> None:
    await run_sql(page_of(tmp_path, SQL_PAGE), context)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("-- => 1", "-- => 2"),
        ('"owner": null', '"owner": "Ada"'),
        ("-- => One; two", "-- => One"),
        ('["admin", "…"]', '["admin"]'),
        ("error=23514", "error=23505"),
        ("VALUES ('');", "VALUES ('Fine');"),
        ("SELECT data FROM projects;", "SELECT data FROM nothing;"),
        ("SELECT count(*) FROM tb_project;\n", "SELECT count(*), 1 FROM tb_project;\n"),
        ("SELECT count(*) FROM tb_project;\n-- => 1", "SELECT count(*) FROM tb_project;\n\n\nSELECT 1\n-- => 1"),
        ("roles = admin, editor", "roles = editor"),
    ],
)
async def test_sql_that_is_wrong_fails(tmp_path: Path, context: asyncpg.Connection, right: str, wrong: str) -> None:
    assert right in SQL_PAGE
    with pytest.raises(AssertionError):
        await run_sql(page_of(tmp_path, SQL_PAGE.replace(right, wrong)), context)


async def test_http_that_is_right_passes(tmp_path: Path, calls: HttpRun) -> None:
    await calls.run(page_of(tmp_path, HTTP_PAGE))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"name": "Ada"', '"name": "Eve"'),
        ('"member_count": 1', '"member_count": "1"'),
        ('"member_count": 1', '"members": "…"'),
        ("json 404", "json 409"),
        ("json 404", "json 200"),
        ('[{"name": "One"}]', "[]"),
        ('[{"name": "One"}]', '[{"name": "One"}, {"name": "Two"}]'),
        ("data.project.id", "data.project.name"),
        ("{{project}}", "{{projekt}}"),
        ("rpc/create_project", "rpc/create_nothing"),
    ],
)
async def test_http_that_is_wrong_fails(tmp_path: Path, calls: HttpRun, right: str, wrong: str) -> None:
    assert right in HTTP_PAGE
    with pytest.raises(AssertionError):
        await calls.run(page_of(tmp_path, HTTP_PAGE.replace(right, wrong)))


async def test_an_answer_that_nobody_describes_must_be_a_success(tmp_path: Path, calls: HttpRun) -> None:
    with pytest.raises(AssertionError, match="404"):
        await calls.run(page_of(tmp_path, "```http\nGET /api/v2/nothing\n```\n"))


async def test_a_statement_may_be_quoted_in_dollars() -> None:
    found = statements("DO $$\nBEGIN\n    NULL;\nEND\n$$;\nSELECT 1; -- one\n-- a last comment\n")
    assert [each.sql.split()[0] for each in found] == ["DO", "SELECT"]


async def test_a_wildcard_stands_for_anything_and_for_nothing_else() -> None:
    assert matches([1, "…"], [1])
    assert matches([1, "…"], [1, 2, 3])
    assert not matches([1, "…"], [])
    assert not matches(1, True)
    assert not matches({"a": "…"}, {"b": 1})
