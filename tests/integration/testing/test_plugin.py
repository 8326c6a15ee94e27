"""The fixtures of the plugin, and what they say when they are used in the wrong way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx
import pytest
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from sqlalchemy import select, text

from control_plane.errors import ConfigurationError
from control_plane.settings import Settings
from control_plane.tenancy import tenant_context
from control_plane.testing import Installation, Tenancy, Tenant
from control_plane.testing.application import load_application, run_application
from control_plane.testing.installation import open_installation
from control_plane.testing.probe import probe, seen
from control_plane.testing.servers import require_managed_role
from tests.integration.testing.notes import notes
from tests.support.servers import Server, dsn_with

Pair = tuple[Tenant, Tenant]


@pytest.fixture(scope="session")
def tenancy_app(tenancy_settings: Settings) -> FastAPI:
    return notes(tenancy_settings)


def test_each_tenant_has_a_client_with_its_token(tenancy_pair: Pair, tenancy_mode: str) -> None:
    for tenant in tenancy_pair:
        assert tenant.isolation == tenancy_mode
        title = uuid4().hex
        assert tenant.client.post("/notes", json={"title": title}).json()["title"] == title
        assert title in tenant.client.get("/notes").text
        assert all(title not in other.client.get("/notes").text for other in tenancy_pair if other is not tenant)


async def test_clients_work_on_any_loop_and_at_the_same_time(tenancy: Tenancy) -> None:
    answers = await asyncio.gather(*(tenant.async_client.get("/notes") for tenant in tenancy.tenants for _ in range(3)))
    assert {answer.status_code for answer in answers} == {200}


def test_a_coroutine_runs_where_the_connections_of_the_application_are(tenancy: Tenancy, tenancy_pair: Pair) -> None:
    acme, _ = tenancy_pair

    async def count() -> Any:
        async with tenant_context(acme.id, acme.user_id, of=tenancy.app) as session:
            return await session.scalar(text("SELECT count(*) FROM tb_note"))

    assert tenancy.run(count) == len(acme.client.get("/notes").json())


def test_rows_are_told_as_their_owner_sees_them(tenancy: Tenancy, tenancy_pair: Pair) -> None:
    acme, other = tenancy_pair
    before = tenancy.rows(acme)
    other.client.post("/notes", json={"title": "theirs"})
    assert tenancy.rows(acme) == before
    note = acme.client.post("/notes", json={"title": "mine"}).json()
    assert tenancy.rows(acme) != before
    acme.client.delete(f"/notes/{note['id']}")
    assert tenancy.rows(acme) == before


def test_one_connection_is_one_connection_until_the_block_ends(tenancy: Tenancy) -> None:
    acme, other = tenancy.pair("shared")
    usual = tenancy.app.state.tenancy
    with probe(tenancy) as probed:
        with tenancy.one_connection():
            backends = {probed.ask(tenant, seen).backend for tenant in (acme, other) * 3}
            assert len(backends) == 1
        assert tenancy.app.state.tenancy is usual
        assert probed.ask(acme, seen).tenant == str(acme.id)
    assert acme.client.post(probed.path).status_code == 404


def test_the_probe_passes_failures_on(tenancy: Tenancy) -> None:
    acme, _ = tenancy.pair("shared")

    async def fail(_: Any) -> None:
        raise ArithmeticError

    with probe(tenancy) as probed, pytest.raises(AssertionError, match="a request of alpha-shared failed: 500"):
        probed.ask(acme, fail)


def test_an_application_may_be_an_object_that_read_the_environment(
    tenancy_environment: Mapping[str, str], tenancy_installation: Installation, tenancy_portal: BlockingPortal
) -> None:
    assert tenancy_environment.items() <= os.environ.items()
    app = load_application("tests.integration.testing.live:app", tenancy_installation.settings)
    for _ in range(2):  # its lifespan, too, once per module that uses it
        with run_application(app, tenancy_installation, tenancy_portal) as tenancy:
            assert tenancy.tenants[0].client.get("/notes").status_code == 200


@pytest.mark.parametrize("named", ["tests.integration.testing.notes:nothing", "tests.integration.testing.notes:LIST"])
def test_what_is_no_application_is_refused(named: str, tenancy_settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="is no application") as refusal:
        load_application(named, tenancy_settings)
    assert "create_app(settings) returns it" in str(refusal.value.hint)


def test_an_application_without_tenancy_is_refused(
    tenancy_installation: Installation, tenancy_portal: BlockingPortal
) -> None:
    with (
        pytest.raises(ConfigurationError, match="has no tenancy"),
        run_application(FastAPI(), tenancy_installation, tenancy_portal),
    ):
        pass


async def test_an_installation_leaves_nothing_behind(server: Server) -> None:
    opening = open_installation(server.dsn, templates=None, template="starter", modes=["database"])
    async with opening as installation:
        prefix = f"cp_{installation.plane.installation_id.hex[:8]}_"
        async with installation.plane.databases.registry() as session:
            assert await session.scalar(select(text("1")))
        assert len(await traces(server, prefix)) == 5  # the group and two homes; the tenants' database and a template
    assert await traces(server, prefix) == []


async def traces(server: Server, prefix: str) -> list[str]:
    async with server.connection() as connection:
        rows = await connection.fetch(
            """SELECT rolname AS name FROM pg_roles WHERE starts_with(rolname, $1)
            UNION ALL SELECT datname FROM pg_database WHERE starts_with(datname, $1)""",
            prefix,
        )
    return [row["name"] for row in rows]


async def test_a_role_that_no_managed_server_gives_is_refused(server: Server) -> None:
    name, database = f"cp_testing_{uuid4().hex[:8]}", await server.create_database()
    async with server.connection() as connection:
        await connection.execute(f"CREATE ROLE {name} LOGIN CREATEDB PASSWORD 'x'")
        await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {name}")
        try:
            with pytest.raises(ConfigurationError, match="must name a role with CREATEROLE"):
                await require_managed_role(dsn_with(server.dsn, user=name, password="x", database=database))
            await require_managed_role(server.dsn)
        finally:
            await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM {name}")
            await connection.execute(f"DROP ROLE {name}")


def test_an_answer_that_does_not_end_is_told(tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.testing.application.PATIENCE", 0.05)
    acme, _ = tenancy.pair("shared")

    async def forever(_: Any) -> None:
        await asyncio.Event().wait()

    with probe(tenancy) as probed, pytest.raises(httpx.ReadTimeout, match="did not end within"):
        probed.ask(acme, forever)
