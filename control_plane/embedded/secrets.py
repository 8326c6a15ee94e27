"""Secrets that a home generates for itself, one file each."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

from control_plane.errors import ConfigurationError


def make_home(home: Path) -> Path:
    """Create CP_HOME where it is missing; its absolute path.

    Started by root it can be traversed, not listed: the database server runs under another account.
    """
    home = home.absolute()
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigurationError(f"{home} cannot be created: {error.strerror}.", hint="Set CP_HOME.") from error
    if not home.is_dir():
        raise ConfigurationError(f"{home} is not a directory.", hint="Set CP_HOME to a directory.")
    return home


def home_secret(home: Path, name: str) -> str:
    """The secret in `<home>/<name>.key` (43 URL-safe characters, 32 random bytes), made at the first call.

    Processes that call at the same time get the same secret. The file has mode 0600; a file that others may read
    is refused.
    """
    path = make_home(home) / f"{name}.key"
    if not path.exists():
        _create(path, secrets.token_urlsafe(32))
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigurationError(f"{path} can be read by others.", hint=f"chmod 600 '{path}'")
        secret = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}.",
            hint="Start as the user who made CP_HOME, or set another CP_HOME.",
        ) from error
    if len(secret) < 32:
        raise ConfigurationError(f"{path} holds less than 32 characters.", hint="Restore the file from a copy.")
    return secret


def _create(path: Path, secret: str) -> None:
    """Write `secret` to `path` whole or not at all; another process that was first wins."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}.", hint="Set CP_HOME to a directory of yours."
        ) from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
