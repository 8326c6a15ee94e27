"""`cp dev`: the first thing that a newcomer runs."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.program import Program, free_port, stop
from tests.support.servers import temporary_home


@pytest.fixture
def program() -> Iterator[Program]:
    """With a CP_HOME whose path contains a space."""
    with temporary_home() as home:
        yield Program(home.parent / "my home", free_port())


def test_everything_starts_at_once_and_keeps_its_data(program: Program) -> None:
    output = program.home.parent / "dev.log"
    with program.started("dev", output=output) as process:
        program.wait_until_ready(process, output)
        assert httpx.get(f"{program.url}/docs").status_code == 200
        lines = _curl_lines(output)
        assert len(lines) == 3
        tenants, projects, created = [json.loads(_paste(line)) for line in lines]
        assert {tenant["slug"]: tenant["isolation"] for tenant in tenants["items"]} == {
            "acme": "shared", "globex": "schema", "initech": "database",
        }  # fmt: skip
        assert len(projects) == 2
        assert created["success"]
        assert stop(process, signal.SIGINT) == 0, output.read_text()
    assert not program.postgres_running
    assert "Traceback" not in output.read_text()

    database_port = free_port()
    with program.started("dev", "--database-port", str(database_port), output=output) as process:
        program.wait_until_ready(process, output)
        with socket.create_connection(("127.0.0.1", database_port), timeout=5):
            pass  # open because it was asked for
        again, projects, _ = [json.loads(_paste(line)) for line in _curl_lines(output)]
        assert [tenant["id"] for tenant in again["items"]] == [tenant["id"] for tenant in tenants["items"]]
        assert len(projects) == 2
        for token in _tokens(output):
            headers = {"Authorization": f"Bearer {token}"}
            assert len(httpx.get(f"{program.url}/api/v2/users", headers=headers).json()) == 2
        assert stop(process, signal.SIGTERM) == 0
    assert not program.postgres_running


def test_a_port_in_use_is_said_before_anything_starts(program: Program) -> None:
    with program.started("dev", output=program.home.parent / "dev.log") as process:
        program.wait_until_ready(process, program.home.parent / "dev.log")
        run = program.run("dev", code=2)
        assert run.stderr.startswith("error: Cannot listen on 127.0.0.1")
        assert stop(process) == 0


def _curl_lines(output: Path) -> list[str]:
    return [line for line in output.read_text().splitlines() if line.startswith("curl ")]


def _tokens(output: Path) -> list[str]:
    lines = output.read_text().splitlines()
    return [lines[number + 1] for number, line in enumerate(lines) if line.startswith("Token of ")]


def _paste(line: str) -> str:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
