"""The program as its users run it: real processes, a CP_HOME of their own, real HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from typer.testing import CliRunner

from control_plane.cli.main import app
from control_plane.settings import Settings

PATIENCE = 60.0  # seconds for anything that a slow machine may take long over


class Program:
    """`control-plane …` with one CP_HOME, and so one embedded server."""

    def __init__(self, home: Path, port: int, **variables: str) -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CP_")}
        self.environment = {**inherited, "CP_HOME": str(home), "CP_PORT": str(port), **variables}

    def run(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; `code` is the exit code to insist on."""
        done = subprocess.run(
            _command(*arguments), env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if code is not None:
            assert done.returncode == code, done.stdout + done.stderr
        return done

    def token(self, *arguments: str) -> dict[str, str]:
        """The header that carries a token of `cp token …`, run within this process: tests want hundreds of them."""
        environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("CP_")}
        result = CliRunner().invoke(app, ["token", *arguments], env={**environment, **self.environment})
        assert result.exit_code == 0, result.output
        printed = result.stdout
        assert printed == printed.strip() + "\n"
        return {"Authorization": f"Bearer {printed.strip()}"}

    @contextmanager
    def started(self, *arguments: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A process that goes on, its output in `output`; killed at the end if it still runs."""
        with output.open("wb") as file:
            process = subprocess.Popen(
                _command(*arguments), env=self.environment, stdout=file, stderr=subprocess.STDOUT
            )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def wait_until_ready(self, process: subprocess.Popen[bytes], output: Path) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert process.poll() is None, output.read_text()
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready: {output.read_text()}")

    @property
    def postgres_running(self) -> bool:
        """Whether a PostgreSQL server runs on the data in CP_HOME."""
        data = (self.home / "postgres" / "data").resolve()
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if (directory / "cwd").resolve() == data:
                    return True
            except OSError:
                continue
        return False


def settings_environment(settings: Settings) -> dict[str, str]:
    """The environment of a process that works with `settings`, which name a registry and both keys."""
    assert settings.database_url is not None
    assert settings.secret_key is not None
    assert settings.signing_key is not None
    own = {
        "CP_HOME": str(settings.home),
        "CP_TEMPLATES": str(settings.templates),
        "CP_DATABASE_URL": settings.database_url.get_secret_value(),
        "CP_SECRET_KEY": settings.secret_key.get_secret_value(),
        "CP_SIGNING_KEY": settings.signing_key.get_secret_value(),
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("CP_")} | own


def stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> int:
    """Send `how` and return the exit code."""
    process.send_signal(how)
    return process.wait(timeout=PATIENCE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def client(program: Program, headers: Mapping[str, str], **options: Any) -> httpx.Client:
    return httpx.Client(base_url=program.url, headers=dict(headers), timeout=PATIENCE, **options)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "control_plane", *arguments]
