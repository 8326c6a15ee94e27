"""Where the files of an embedded server are.

    CP_HOME/postgres.key, cp_admin.key   the passwords
    CP_HOME/postgres/                    `base`: data/, server.log, locks
    /tmp/cp-<hash of base>/              the socket: its path may have 107 bytes, CP_HOME may be longer

Root hands the server over to another account, which may not get to CP_HOME (`/root/x`) or to the programs
(`/root/x/.venv`). Modes of folders that are not ours stay as they are; instead `CP_HOME/postgres` becomes a symbolic
link to a folder in /var/lib/control-plane, and the programs are copied there.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from control_plane.embedded.account import Account, account_for
from control_plane.embedded.binaries import binary, copy_binaries
from control_plane.embedded.secrets import make_home
from control_plane.errors import ConfigurationError

ELSEWHERE = Path("/var/lib/control-plane")


@dataclass(frozen=True)
class Layout:
    base: Path
    programs: Path  # the `bin` directory that the server's account runs
    account: Account

    @property
    def data(self) -> Path:
        return self.base / "data"

    @property
    def log(self) -> Path:
        return self.base / "server.log"

    @property
    def sockets(self) -> Path:
        # Not $TMPDIR and not $XDG_RUNTIME_DIR: a process with another environment must come to the same path.
        return Path("/tmp", f"cp-{hashlib.sha256(os.fsencode(self.base)).hexdigest()[:16]}")  # noqa: S108

    def make_sockets(self) -> None:
        """Create the socket directory, or check that the one found is the account's alone."""
        try:
            self.sockets.mkdir(mode=0o700)
            self.account.own(self.sockets)
        except FileExistsError:
            pass
        found = self.sockets.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self.account.uid or stat.S_IMODE(found.st_mode) != 0o700:
            raise ConfigurationError(
                f"{self.sockets} is not a private directory of uid {self.account.uid}.",
                hint="It is the directory of the database's socket. See who made it, remove it and start again.",
            )


def find_layout(home: Path) -> Layout:
    """The layout of the server of `home`, whose directories are made where missing."""
    link = make_home(home) / "postgres"
    if not link.exists():
        _make_base(link)
    base = link.resolve()
    account = account_for(base / "data")
    if not account.reaches(base):
        raise ConfigurationError(
            f"The database's account (uid {account.uid}) cannot get to {base}.",
            hint="A directory on the way is closed to it. Open it, or set another CP_HOME.",
        )
    programs = binary("postgres").parent
    if not account.reaches(programs / "postgres"):
        programs = copy_binaries(_make_elsewhere())
    return Layout(base, programs, account)


def _make_base(link: Path) -> None:
    if link.is_symlink():
        raise ConfigurationError(
            f"{link} leads to {os.readlink(link)}, which is gone.",
            hint="Bring the directory back, or remove the link to begin with an empty database.",
        )
    account = account_for(link / "data")
    try:
        if account.reaches(link.parent):
            link.mkdir(mode=0o711 if account.become else 0o700)
            return
        base = Path(tempfile.mkdtemp(dir=_make_elsewhere(), prefix="home-"))
        base.chmod(0o711)
        link.symlink_to(base)
    except FileExistsError:
        pass  # another process was first
    except OSError as error:
        raise ConfigurationError(
            f"{link} cannot be created: {error.strerror}.", hint="Set CP_HOME to a directory of yours."
        ) from error


def _make_elsewhere() -> Path:
    try:
        ELSEWHERE.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{ELSEWHERE} cannot be created: {error.strerror}.",
            hint="Start as an ordinary user, or set CP_HOME to a directory that every account can traverse.",
        ) from error
    return ELSEWHERE
