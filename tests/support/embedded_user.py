"""`python -m tests.support.embedded_user HOME`: uses the server of HOME until its standard input ends."""

from __future__ import annotations

import sys
from pathlib import Path

from control_plane.embedded import EmbeddedServer

if __name__ == "__main__":
    with EmbeddedServer(Path(sys.argv[1])) as server:
        print(server.admin_dsn, flush=True)
        sys.stdin.read()
