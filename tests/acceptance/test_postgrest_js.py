"""`@supabase/postgrest-js`, unchanged, against the running program: a tenant of each isolation mode."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.program import Program, client, free_port
from tests.support.servers import temporary_home

CLIENTS = Path(__file__).parent / "clients"
MODES = ("shared", "schema", "database")
SCRIPT = "postgrest.test.js"
UNREACHABLE = re.compile("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ETIMEDOUT")

pytestmark = pytest.mark.timeout(300)  # a package is fetched before


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client, as the lock names it, and the script."""
    for needed in ("node", "npm"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not on this machine; Debian's packages nodejs and npm bring it")
    folder = tmp_path_factory.mktemp("clients")
    for name in ("package.json", "package-lock.json", ".npmrc", SCRIPT):
        shutil.copy(CLIENTS / name, folder)
    done = execute("npm", "ci", "--ignore-scripts", cwd=folder)
    if unreachable := UNREACHABLE.search(done.stderr):
        pytest.skip(f"the registry of npm cannot be reached from here: {unreachable[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def program(installed: Path) -> Iterator[Program]:
    """A running service with a tenant of each mode."""
    with temporary_home() as home:
        program, output = Program(home, free_port()), home.parent / "serve.log"
        program.run("init")
        with program.started("serve", output=output) as process:
            program.wait_until_ready(process, output)
            with client(program, program.token("--platform")) as platform:
                for mode in MODES:
                    platform.post(
                        "/tenants", json={"slug": f"acme-{mode}", "name": mode, "isolation": mode}
                    ).raise_for_status()
            yield program


@pytest.mark.parametrize("mode", MODES)
def test_the_client_works_unchanged(program: Program, installed: Path, mode: str) -> None:
    token = program.token("--tenant", f"acme-{mode}", "--role", "admin")["Authorization"].removeprefix("Bearer ")
    done = execute("node", "--test", SCRIPT, cwd=installed, CP_URL=program.url, CP_TOKEN=token)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^(?:#|ℹ) (tests|pass) (\d+)$", done.stdout, re.MULTILINE))
    assert counts["tests"] == counts["pass"] != "0", done.stdout


def execute(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)
