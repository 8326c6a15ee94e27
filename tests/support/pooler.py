"""A PgBouncer before the session's server, configured as `docs/pgbouncer.md` says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from control_plane.embedded.account import account_for
from control_plane.isolation.tenancy_schema import cluster_sql
from tests.support.servers import Server

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "pgbouncer.md"


@dataclass
class Pooler:
    """A PgBouncer that runs, or does not."""

    folder: Path
    port: int
    role: str  # its own, a member of cp_pooler
    password: str
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"postgresql://127.0.0.1:{self.port}?sslmode=disable"

    async def start(self) -> None:
        self.process = await asyncio.to_thread(self._launch)
        async with asyncio.timeout(20):
            while True:
                assert self.process.poll() is None, "PgBouncer ended: " + self.log
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    @property
    def log(self) -> str:
        return (self.folder / "pgbouncer.log").read_text()

    def _launch(self) -> subprocess.Popen[bytes]:
        assert PROGRAM is not None
        account = account_for(self.folder / "absent")  # PgBouncer does not run as root either
        for path in (self.folder, *self.folder.iterdir()):
            account.own(path)
        return subprocess.Popen(
            [PROGRAM, "-q", str(self.folder / "pgbouncer.ini")],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **account.become,
        )

    async def stop(self) -> None:
        """At once: clients and servers are cut off."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self.process.wait, 20)
            self.process = None

    def configure(self, **changes: str) -> None:
        """Change settings of pgbouncer.ini; they count from the next start on."""
        path = self.folder / "pgbouncer.ini"
        text = path.read_text()
        for name, value in changes.items():
            text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
            assert count == 1, f"pgbouncer.ini has no {name}"
        path.write_text(text)


def documented_ini() -> str:
    """The configuration that the documentation gives to operators."""
    (text,) = re.findall(r"```ini\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert isinstance(text, str)
    return text


@asynccontextmanager
async def open_pooler(server: Server, **settings: str) -> AsyncIterator[Pooler]:
    """One with `settings` other than the documented ones. A test without PgBouncer is skipped."""
    if PROGRAM is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    pooler = _write(server, settings)
    async with server.connection() as admin:
        await admin.execute(cluster_sql("roles.sql"))
        await admin.execute(
            f"CREATE ROLE {pooler.role} LOGIN PASSWORD '{pooler.password}' IN ROLE cp_pooler ROLE CURRENT_USER"
        )
    try:
        await pooler.start()
        yield pooler
    finally:
        await pooler.stop()
        await asyncio.to_thread(shutil.rmtree, pooler.folder)
        async with server.connection() as admin:
            await admin.execute(f"DROP ROLE {pooler.role}")


def _write(server: Server, settings: dict[str, str]) -> Pooler:
    folder = Path(tempfile.mkdtemp(prefix="cp-pooler-", dir="/tmp"))
    folder.chmod(0o711)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    role = f"{server.session}_pooler_{secrets.token_hex(3)}"
    pooler = Pooler(folder, port, role, secrets.token_hex(16))
    (folder / "userlist.txt").write_text(f'"{role}" "{pooler.password}"\n')
    host, server_port = _address(server.dsn)
    ini = documented_ini().replace("host=db.internal port=5432", f"host={host} port={server_port}")
    (folder / "pgbouncer.ini").write_text(ini)
    pooler.configure(
        listen_addr="127.0.0.1",
        listen_port=str(port),
        auth_file=str(folder / "userlist.txt"),
        auth_user=role,
        logfile=str(folder / "pgbouncer.log"),
        pidfile=str(folder / "pgbouncer.pid"),
        unix_socket_dir="",
        **settings,
    )
    return pooler


def _address(dsn: str) -> tuple[str, int]:
    parts = urlsplit(dsn)
    options = parse_qs(parts.query)
    host = unquote(parts.hostname or options.get("host", ["localhost"])[0])
    return host, parts.port or int(options.get("port", ["5432"])[0])
