"""An application that costs next to nothing, so that the server is measured; answers after one turn of the loop.

`python -m benchmarks.rivals.still PORT` serves it as `cp serve` does.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import uvloop

from control_plane.cli.server import Server

BODY = b"[" + b",".join([b'{"id": "00000000-0000-4000-8000-000000000000", "name": "A name of somebody"}'] * 20) + b"]"
HEADERS = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"private, no-store"),
    (b"vary", b"Authorization"),
    (b"content-length", b"%d" % len(BODY)),
]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Server(app).run_on(socket.create_server(("127.0.0.1", int(sys.argv[1])))))
