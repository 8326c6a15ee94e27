"""Where everything is measured: an installation of its own in a temporary CP_HOME, and processes beside it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil

from control_plane.operations.engine import NewTenant
from control_plane.pools.connect import connect
from control_plane.registry import clusters
from control_plane.registry.models import Cluster
from control_plane.service import ControlPlane, complete, initialise, open_control_plane
from control_plane.settings import Settings

PATIENCE = 60.0  # seconds for a process to answer
RECORDED = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_connections",
)


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A CP_HOME that the server's account can reach; removed afterwards."""
    parent = Path(tempfile.mkdtemp(prefix="cp-bench-", dir="/tmp"))
    parent.chmod(0o711)
    try:
        yield parent / "home"
    finally:
        shutil.rmtree(parent)


def settings_for(home: Path, **given: Any) -> Settings:
    """The settings of `home`, whatever the environment says: `model_validate` does not read it."""
    return complete(Settings.model_validate({"home": home, **given}))


@asynccontextmanager
async def installation(settings: Settings) -> AsyncIterator[tuple[ControlPlane, Cluster]]:
    """An open control plane with the template released, and its one cluster: the embedded server as shipped."""
    async with open_control_plane(settings, upgrade=True) as plane:
        await initialise(plane, actor="benchmark")
        async with plane.databases.registry() as session:
            cluster = (await clusters.all_by_name(session))[0]
        yield plane, cluster


async def onboard(plane: ControlPlane, isolation: str, count: int) -> list[str]:
    """Create `count` tenants through the verb that the API calls; their slugs."""
    slugs = [f"{isolation}-{number}" for number in range(count)]
    gate = asyncio.Semaphore(4)

    async def create(slug: str) -> None:
        async with gate:
            new = NewTenant(slug, slug, isolation)
            tenant, _ = await plane.operations.create_tenant(new, actor="benchmark", wait=PATIENCE)
            if tenant.status != "active":
                raise RuntimeError(f"{slug} is {tenant.status}")

    await create(slugs[0])  # alone, since the first shared tenant builds the home of all
    async with asyncio.TaskGroup() as group:
        for slug in slugs[1:]:
            group.create_task(create(slug))
    return slugs


async def server_settings(dsn: str) -> dict[str, str]:
    """The configuration that figures depend on."""
    connection = await connect(dsn, application_name="benchmark")
    try:
        return {f"postgres.{name}": await connection.fetchval(f"SHOW {name}") for name in RECORDED}
    finally:
        await connection.close()


def dsn_with(dsn: str, *, database: str, user: str | None = None, password: str = "") -> str:
    """`dsn` (a URL) for another database and, if given, role."""
    parts = urlsplit(dsn)
    login, _, host = parts.netloc.rpartition("@")
    if user is not None:
        login = f"{user}:{quote(password)}"
    return f"{parts.scheme}://{login}@{host}/{database}?{parts.query}"


def environment(home: Path | None, **more: str) -> dict[str, str]:
    """For a process of the program on `home`, if it has one: nothing of the user's own CP_* settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CP_")}
    return {**inherited, **({} if home is None else {"CP_HOME": str(home)}), **more}


@dataclass(frozen=True)
class Process:
    """A server, and the processes that it starts."""

    port: int
    pid: int

    def cpu(self) -> float:
        """The processor time that it has used so far, in seconds."""
        root = psutil.Process(self.pid)
        times = [each.cpu_times() for each in (root, *root.children(recursive=True))]
        return sum(float(each.user + each.system) for each in times)


@contextmanager
def service(home: Path, *options: str, **variables: str) -> Iterator[Process]:
    """`control-plane serve` on `home`."""
    port = free_port()
    command = [sys.executable, "-m", "control_plane", "serve", *options]
    with running(command, port, "/readyz", environment(home, CP_PORT=str(port), **variables)) as process:
        yield process


@contextmanager
def running(command: list[str], port: int, probe: str, variables: dict[str, str]) -> Iterator[Process]:
    """A server that is up once `probe` (a path) is answered in any way; ended by SIGTERM."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + PATIENCE
            while not _answers(f"http://127.0.0.1:{port}{probe}"):
                if process.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    raise RuntimeError(f"{command} does not start: {output.read().decode()}")
                time.sleep(0.05)
            yield Process(port, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
