"""The service does not start on databases that cannot keep tenants apart, and says how to mend them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from control_plane.embedded import EmbeddedServer
from control_plane.pools.connect import connect
from tests.support.program import Program, free_port, stop
from tests.support.servers import dsn_with, temporary_home

BREAKAGES = {
    "ALTER ROLE {role} BYPASSRLS": ("ALTER ROLE {role} NOBYPASSRLS", "has BYPASSRLS"),
    "ALTER ROLE {role} SUPERUSER": ("ALTER ROLE {role} NOSUPERUSER", "is a superuser"),
    "ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY": (
        "ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        "is not protected",
    ),
}


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    """Initialised, with a shared tenant; nothing of it runs."""
    with temporary_home() as home:
        made = Program(home, free_port())
        made.run("init")
        made.run("tenant", "create", "acme", "--isolation", "shared", "--name", "Acme")
        yield made


async def _execute(dsn: str, statement: str) -> None:
    """As superuser, in the tenants' database, with the names of the shared home filled in."""
    outside = await connect(dsn, application_name="tests")
    database = await outside.fetchval("SELECT datname FROM pg_database WHERE datname LIKE 'cp\\_%\\_tenants'")
    await outside.close()
    inside = await connect(dsn_with(dsn, database=database), application_name="tests")
    role = await inside.fetchval("SELECT quote_ident(role_name) FROM tenancy.home_roles")
    table = await inside.fetchval("SELECT schema_name || '.tb_user' FROM tenancy.homes")
    await inside.execute(statement.format(role=role, table=table))
    await inside.close()


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_posture_keeps_the_service_from_starting_and_its_fix_is_named(program: Program, breakage: str) -> None:
    mending, problem = BREAKAGES[breakage]
    with EmbeddedServer(program.home) as server:
        asyncio.run(_execute(server.superuser_dsn, breakage))
        refused = program.run("serve", code=2)
        assert problem in refused.stderr
        assert "hint:" in refused.stderr
        checked = program.run("cluster", "check", "local", code=None)
        assert checked.returncode == 1
        assert problem in checked.stdout
        asyncio.run(_execute(server.superuser_dsn, mending))

        output = program.home.parent / "serve.log"
        with program.started("serve", output=output) as process:
            program.wait_until_ready(process, output)
            assert stop(process) == 0
