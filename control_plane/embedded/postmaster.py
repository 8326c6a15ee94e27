"""A running server process, as the file `postmaster.pid` in its data directory tells of it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from control_plane.errors import ConfigurationError


@dataclass(frozen=True)
class Postmaster:
    pid: int
    data: Path
    port: int
    status: str  # "starting", "ready", "stopping", …

    @property
    def alive(self) -> bool:
        """Whether the pid is a server on this data directory; after a crash it may be another program's."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # a child of ours that ended stays a zombie until somebody asks
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, PermissionError):  # a server is of our account, or of one that root may signal
            return False
        if not Path("/proc/self/cwd").exists():
            return True
        try:
            # A postmaster works in its data directory. The link of a zombie cannot be read.
            return os.path.samefile(f"/proc/{self.pid}/cwd", self.data)
        except OSError:
            return False

    def stop(self, timeout: float = 60.0) -> None:
        """Fast shutdown: roll back what is open, write a checkpoint, end. Raises when it takes too long."""
        self._signal(signal.SIGINT)
        if wait_until(lambda: not self.alive, timeout):
            return
        self._signal(signal.SIGQUIT)  # without a checkpoint: the next start recovers from the log
        if not wait_until(lambda: not self.alive, 10.0):
            raise ConfigurationError(
                f"The embedded server (process {self.pid}) does not stop.",
                hint=f"kill -9 {self.pid}, then start again.",
            )

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def find_postmaster(data: Path) -> Postmaster | None:
    """The live server on `data`, or None."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        # pid, data directory, start time, port, socket directory, address, shared memory, status
        found = Postmaster(int(lines[0]), data, int(lines[3]), lines[7].strip() if len(lines) > 7 else "starting")
    except (OSError, ValueError, IndexError):
        return None
    return found if found.alive else None


def wait_until(done: Callable[[], bool], timeout: float) -> bool:
    """Poll `done` until it is true; False after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
