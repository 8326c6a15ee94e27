"""Makes a data directory. It gets its name last, so a directory with that name is complete."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from control_plane.embedded.layout import Layout
from control_plane.errors import ConfigurationError
from control_plane.settings import shipped

# A server that inherits PGDATA, PGOPTIONS or a locale of ours would not be the same server everywhere.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def create_data(layout: Layout, superuser_password: str, admin_password: str, *, durable: bool) -> None:
    """Create `layout.data` with the roles and databases of sql/embedded/bootstrap.sql; ~1 s.

    The caller holds the lock of the layout. `durable=False` leaves out the fsyncs.
    """
    unfinished = layout.base / "data.unfinished"
    if unfinished.exists():
        shutil.rmtree(unfinished)  # a start before this one was interrupted
    unfinished.mkdir(mode=0o700)
    layout.account.own(unfinished)
    _initdb(layout, unfinished, superuser_password, durable=durable)
    _first_statements(layout, unfinished, admin_password, durable=durable)
    os.rename(unfinished, layout.data)


def _initdb(layout: Layout, data: Path, password: str, *, durable: bool) -> None:
    password_file = layout.base / "initdb.password"
    password_file.unlink(missing_ok=True)
    try:
        password_file.touch(mode=0o600, exist_ok=False)
        password_file.write_text(password)
        layout.account.own(password_file)
        # The builtin provider needs no locale of the operating system.
        _run(
            layout,
            "initdb",
            f"--pgdata={data}",
            "--username=postgres",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            *([] if durable else ["--no-sync"]),
        )
    finally:
        password_file.unlink(missing_ok=True)


def _first_statements(layout: Layout, data: Path, admin_password: str, *, durable: bool) -> None:
    statements = (shipped("sql") / "embedded" / "bootstrap.sql").read_text()
    literal = "'" + admin_password.replace("'", "''") + "'"
    options = ["-c", "exit_on_error=on", "-c", f"fsync={'on' if durable else 'off'}"]
    _run(
        layout, "postgres", "--single", "-j", "-D", str(data), *options, "postgres",
        stdin=statements.replace(":'password'", literal),
    )  # fmt: skip


def _run(layout: Layout, program: str, *arguments: str, stdin: str = "") -> None:
    result = subprocess.run(
        [layout.programs / program, *arguments],
        input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=ENVIRONMENT, cwd="/", umask=0o077, check=False, **layout.account.become,
    )  # fmt: skip
    if result.returncode != 0:
        raise ConfigurationError(
            f"The embedded database could not be created: {program} failed.",
            details=result.stdout[-2000:],
            hint="See the details. Nothing was kept; starting again begins anew.",
        )
