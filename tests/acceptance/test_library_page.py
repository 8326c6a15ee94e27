"""docs/library.md: its application is put together from the page, and tested as the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import Server

PAGE = Path(__file__).resolve().parents[2] / "docs" / "library.md"

# What the page leaves to its reader: somebody who runs the job, and an application that is made when it is imported.
MORE = """
from uuid import uuid4
from control_plane.testing import Tenancy
from control_plane.tenancy import CurrentPrincipal
from myapp.main import rename_all

def test_tokens_have_the_roles(tenancy: Tenancy) -> None:
    async def roles(principal: CurrentPrincipal) -> list[str]:
        return list(principal.roles)

    tenancy.app.add_api_route("/roles", roles)
    assert tenancy.pair("schema")[0].client.get("/roles").json() == ["admin", "editor"]

async def test_the_job_runs(tenancy: Tenancy) -> None:
    acme, other = tenancy.pair("schema")
    before = other.client.get("/notes").json()
    await rename_all(acme.slug, uuid4(), "renamed", tenancy.installation.settings)
    tenancy.run(rename_all, acme.id, uuid4(), "renamed", tenancy.app)
    assert {note["title"] for note in acme.client.get("/notes").json()} == {"renamed"}
    assert other.client.get("/notes").json() == before
    assert acme.client.get("/count").json() == len(acme.client.get("/notes").json())
"""


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_its_application_passes_its_tests(server: Server, tmp_path: Path) -> None:
    install, sessions, connections, jobs, contract, own_test = blocks("python")
    (configuration,) = blocks("toml")
    application = tmp_path / "myapp"
    application.mkdir()
    (application / "main.py").write_text(f"{sessions}\n{install}\n{connections}\n{jobs}")
    (tmp_path / "pyproject.toml").write_text(configuration)
    (tmp_path / "test_tenancy.py").write_text(f"{contract}\n{own_test}\n{MORE}")
    # The help desk's own tests run all of the contract, in all modes.
    options = ("tenancy_modes=schema", "tenancy_roles=admin editor", "asyncio_mode=auto")
    selected = ("-k", "not cancelled and not carry")
    run = pytest_run(tmp_path, server, *(word for option in options for word in ("-o", option)), *selected)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "9 passed" in run.stdout


def pytest_run(folder: Path, server: Server, *options: str) -> subprocess.CompletedProcess[str]:
    """pytest as a developer runs it, with every warning an error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CP_", "PYTEST"))}
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", *options]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    environment = kept | {"CP_TEST_DATABASE_URL": server.dsn, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


UNRELATED = """
import sys

def test_nothing_is_loaded(pytestconfig):
    loaded = {"fastapi", "sqlalchemy", "asyncpg", "httpx", "control_plane.settings"} & set(sys.modules)
    assert not loaded
    assert pytestconfig.pluginmanager.hasplugin("tenancy") is LOADED
"""


@pytest.mark.parametrize("loaded", [True, False])
def test_a_run_that_does_not_use_the_plugin_pays_nothing(server: Server, tmp_path: Path, loaded: bool) -> None:
    (tmp_path / "test_unrelated.py").write_text(UNRELATED.replace("LOADED", str(loaded)))
    # Of the plugins only ours may import anything; those of the development environment do.
    others = [f"-p no:{name}" for name in ("anyio", "schemathesis", "asyncio", "hypothesispytest", "xdist", "timeout")]
    options = [*" ".join(others).split(), *([] if loaded else ["-p", "no:tenancy"])]
    run = pytest_run(tmp_path, server, *options)
    assert run.returncode == 0, run.stdout + run.stderr
