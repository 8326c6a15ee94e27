"""The console script `cp`: our own commands, and coreutils' copy for everything else.

In an activated virtual environment this script comes before the system's `cp`, so all that is not ours must reach
that program unchanged and fast: nothing but the standard library is imported until the command is known to be ours.
"""

from __future__ import annotations

import os
import signal
import sys

COMMANDS = (
    "dev", "serve", "worker", "init", "cluster", "tenant", "token", "env", "doctor", "drift", "template", "migrate-all",
    "migrate", "fleet", "deprecations", "adopt", "cutover",
)  # fmt: skip

NOT_FOUND = 127  # what a shell answers for a command that does not exist


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        from control_plane.cli.main import app

        app(prog_name="cp")
    else:
        copy(sys.argv[1:])


def copy(arguments: list[str]) -> None:
    """Become the system's `cp`; returns never, ends with 127 when there is none."""
    program = system_copy(sys.argv[0], os.environ.get("PATH", os.defpath))
    if program is None:
        sys.stderr.write("cp: this is the control plane's cp, and PATH has no other one to copy files with\n")
        sys.exit(NOT_FOUND)
    # Python ignores these two at start, and a program that is exec'ed would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execv(program, ["cp", *arguments])  # noqa: S606 - no shell is wanted


def system_copy(script: str, path: str) -> str | None:
    """The first `cp` that comes after `script` on `path`, or the one of the standard path.

    Only looking further down keeps two environments that both hold this script from calling each other for ever.
    """
    candidates = [os.path.join(directory or os.curdir, "cp") for directory in path.split(os.pathsep)]
    ours = [index for index, candidate in enumerate(candidates) if _same(candidate, script)]
    after = candidates[ours[-1] + 1 :] if ours else candidates
    standard = [f"{directory}/cp" for directory in os.defpath.split(os.pathsep)]
    for candidate in after + standard:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK) and not _same(candidate, script):
            return candidate
    return None


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
