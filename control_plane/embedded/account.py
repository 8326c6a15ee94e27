"""The operating system account that the server runs under: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from control_plane.errors import ConfigurationError

_SUITABLE = ("postgres", "nobody")


class Become(TypedDict, total=False):
    """The arguments of `subprocess` that change the account."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    uid: int
    gid: int

    @property
    def become(self) -> Become:
        """Arguments for `subprocess`; none when we run as this account already."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def reaches(self, path: Path) -> bool:
        """Whether the account can traverse every directory on the way to the directory or program `path`."""
        if not self.become:
            return os.access(path, os.X_OK)
        command = ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)]
        try:
            return subprocess.run(command, cwd="/", check=False, **self.become).returncode == 0
        except OSError as error:
            raise ConfigurationError(
                f"PostgreSQL does not run as root, and this root may not change to uid {self.uid}: {error.strerror}.",
                hint="Start as an ordinary user, or set CP_DATABASE_URL to a server of yours.",
            ) from error

    def own(self, path: Path) -> None:
        """Make `path` the account's, if it is not."""
        if self.become:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def account_for(data: Path) -> Account:
    """The account for a server on `data`: its owner; before it exists, we ourselves or what root hands over to."""
    ours = os.geteuid()
    if data.is_dir():
        owner = data.stat()
        if owner.st_uid == 0 or ours not in (0, owner.st_uid):
            raise ConfigurationError(
                f"{data} belongs to uid {owner.st_uid}; this process has uid {ours}.",
                hint="Start as the user who made CP_HOME, or set another CP_HOME.",
            )
        return Account(owner.st_uid, owner.st_gid)
    if ours != 0:
        return Account(ours, os.getegid())
    for name in _SUITABLE:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid)
    raise ConfigurationError(
        f"PostgreSQL does not run as root, and there is none of the accounts {', '.join(_SUITABLE)}.",
        hint="Start as an ordinary user, or set CP_DATABASE_URL to a server of yours.",
    )
