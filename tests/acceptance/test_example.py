"""The examples as their readers run them: processes of their own, beside an installation of the control plane."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.conftest import SECRET_KEY, SIGNING_KEY
from tests.support.program import PATIENCE, Program, free_port, stop
from tests.support.servers import Server

ROOT = Path(__file__).resolve().parents[2]
HELPDESK = ROOT / "examples" / "helpdesk"
MODES = {"acme": "shared", "bcme": "shared", "globex": "schema", "initech": "database"}


@dataclass
class Example:
    program: Program
    process: subprocess.Popen[bytes]
    output: Path
    url: str
    tokens: dict[str, dict[str, str]]

    def get(self, headers: dict[str, str] | None = None) -> httpx.Response:
        return httpx.get(f"{self.url}/notes", headers=headers, timeout=PATIENCE)

    def add(self, slug: str, name: str) -> httpx.Response:
        return httpx.post(f"{self.url}/notes", headers=self.tokens[slug], json={"name": name}, timeout=PATIENCE)

    def names(self, slug: str) -> list[str]:
        answer = self.get(self.tokens[slug])
        assert answer.status_code == 200, answer.text
        return [note["name"] for note in answer.json()]

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.output.read_text()
            try:
                self.get()
                return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"not up: {self.output.read_text()}")


@pytest.fixture(scope="module")
def example(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """The running example with a tenant per mode (two shared ones)."""
    folder, port = tmp_path_factory.mktemp("example"), free_port()
    registry = server.dsn_for(asyncio.run(server.create_database()))
    keys = {"CP_SECRET_KEY": SECRET_KEY, "CP_SIGNING_KEY": SIGNING_KEY}
    program = Program(folder / "home", port, CP_DATABASE_URL=registry, **keys)
    program.run("init")
    for slug, isolation in MODES.items():
        program.run("tenant", "create", slug, "--isolation", isolation)
    output = folder / "example.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "examples.notes:app", "--port", str(port)],
            cwd=ROOT,
            env=program.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    tokens = {slug: program.token("--tenant", slug) for slug in MODES}
    opened = Example(program, process, output, f"http://127.0.0.1:{port}", tokens)
    try:
        opened.wait_until_up()
        yield opened
        # uvicorn lets the signal through after a graceful shutdown.
        assert stop(process) in (0, -15), output.read_text()
        assert "Traceback" not in output.read_text()
        assert "Application shutdown complete" in output.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_each_tenant_has_its_own_notes(example: Example) -> None:
    for slug in MODES:
        added = example.add(slug, f"of {slug}")
        assert (added.status_code, added.json()["name"]) == (201, f"of {slug}")
    for slug in MODES:
        assert example.names(slug) == [f"of {slug}"]


def test_nobody_is_served_without_a_tenant(example: Example) -> None:
    for headers, expected in (
        ({}, (401, "unauthenticated")),
        (example.program.token("--platform"), (403, "wrong_token_kind")),
    ):
        answer = example.get(headers)
        assert (answer.status_code, answer.json()["code"]) == expected
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("slug", ["acme", "globex", "initech"])
def test_a_suspended_tenant_is_refused_at_once(example: Example, slug: str) -> None:
    before = example.names(slug)
    example.program.run("tenant", "suspend", slug)
    for answer in (example.get(example.tokens[slug]), example.add(slug, "no")):
        assert (answer.status_code, answer.json()["code"]) == (403, "tenant_suspended")
    example.program.run("tenant", "resume", slug)
    assert example.names(slug) == before


def test_a_note_that_breaks_a_rule_is_refused(example: Example) -> None:
    answer = example.add("globex", "")
    assert (answer.status_code, answer.json()["code"]) == (422, "unprocessable")


def test_the_example_is_short() -> None:
    source = (ROOT / "examples" / "notes.py").read_text(encoding="utf-8")
    assert len([line for line in source.splitlines() if line.strip()]) <= 45


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_help_desk_runs_as_its_readme_says(server: Server, tmp_path: Path) -> None:
    port, own_port = free_port(), free_port()
    registry = server.dsn_for(asyncio.run(server.create_database()))
    program = Program(tmp_path, port, CP_DATABASE_URL=registry, CP_SECRET_KEY=SECRET_KEY, CP_SIGNING_KEY=SIGNING_KEY)
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    prepare, serve, run, use, test = (block.replace("8002", str(own_port)) for block in blocks(HELPDESK / "README.md"))
    variables = prepare.splitlines()[0]
    assert (serve, test) == ("cp serve\n", "pytest examples/helpdesk\n")

    def shell(script: str) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", script]

    def paste(script: str) -> str:
        done = subprocess.run(shell(script), env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    environment = program.environment | {"PATH": path}
    assert "Template helpdesk: released up to version 3." in paste(prepare)
    log = tmp_path / "log"
    with log.open("wb") as output:
        # exec, so that the signal reaches the program and not the shell.
        started = f"{variables}\n{run.replace('uvicorn', 'exec uvicorn')}"
        process = subprocess.Popen(shell(started), env=environment, cwd=ROOT, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{own_port}") as client:
            wait_for(client, process, log)
        answers = paste(f"{variables}\n{use}")
        assert '"subject":"The printer smokes","status":"open","priority":"normal"' in answers
        assert "}[]acme 1\nglobex 0\n" in answers
        assert '[{"agent":null,"open":1,"overdue":1}]' in answers
        assert stop(process) in (0, -15), log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            assert client.get("/healthz").status_code == 200
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"not up: {log.read_text()}")


@pytest.mark.timeout(300)
def test_the_help_desk_passes_its_own_tests(server: Server) -> None:
    """On this session's server, which is left as it was."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CP_", "PYTEST"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/helpdesk"]
    done = subprocess.run(
        command, env=kept | {"CP_TEST_DATABASE_URL": server.dsn}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\n35 passed", done.stdout), done.stdout
    assert asyncio.run(left_behind(server)) == []


async def left_behind(server: Server) -> list[str]:
    async with server.connection() as connection:
        return [
            row["datname"]
            for row in await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'cp_testing_%'")
        ]
