"""`python -m tests.support.embedded_user HOME`: uses the server of HOME until its standard input ends."""

from __future__ import annotations

import sys
from pathlib import Path

from control_plane.embedded import EmbeddedServer
from tests.support.servers import FAST


def fast_server(home: Path, **settings: str) -> EmbeddedServer:
    """The embedded server without the fsyncs, which are most of its first start on a busy disk."""
    return EmbeddedServer(home, settings={**FAST, **settings})


if __name__ == "__main__":
    with fast_server(Path(sys.argv[1])) as server:
        print(server.admin_dsn, flush=True)
        sys.stdin.read()
