"""`python -m benchmarks.delay SOCKET MILLISECONDS`: a proxy before PostgreSQL that holds every packet back for a while.

Prints the TCP port of 127.0.0.1 that it listens on. One thread and one queue: the delay is the same for all, so what
came first is due first. `select` it is, because its timeouts are microseconds; those of epoll, on which event loops
stand, are whole milliseconds.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK = 65536


class Proxy:
    def __init__(self, upstream: str, seconds: float) -> None:
        self._upstream = upstream
        self._seconds = seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._peers: dict[int, socket.socket] = {}  # file descriptor → the other side
        self._watched = [self._listener.fileno()]
        self._due: deque[tuple[float, int, bytes]] = deque()  # when, from where, what; nothing is the end

    def serve(self) -> None:
        while True:
            wait = max(0.0, self._due[0][0] - perf_counter()) if self._due else None
            readable, _, _ = select.select(self._watched, [], [], wait)
            arrived = perf_counter()
            for each in readable:
                if each == self._watched[0]:
                    self._accept()
                else:
                    self._read(each, arrived)
            while self._due and self._due[0][0] <= perf_counter():
                _, source, data = self._due.popleft()
                self._pass_on(source, data)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._upstream)
        for side, other in ((client, server), (server, client)):
            self._peers[side.fileno()] = other
            self._watched.append(side.fileno())

    def _read(self, side: int, arrived: float) -> None:
        try:
            data = os.read(side, CHUNK)
        except ConnectionError:
            data = b""
        if not data:
            self._watched.remove(side)
        self._due.append((arrived + self._seconds, side, data))

    def _pass_on(self, source: int, data: bytes) -> None:
        peer = self._peers.get(source)
        if peer is None:
            return  # closed by the other side
        try:
            if data:
                peer.sendall(data)
                return
        except ConnectionError:
            pass
        for side in (source, peer.fileno()):
            self._peers.pop(side).close()
            if side in self._watched:
                self._watched.remove(side)


@contextmanager
def delayed(dsn: str, round_trip: float) -> Iterator[str]:
    """A DSN like `dsn`, of a server on this machine, with `round_trip` milliseconds between, half of it each way."""
    parts = urlsplit(dsn)
    options = parse_qs(parts.query)
    path = f"{unquote(options['host'][0])}/.s.PGSQL.{options['port'][0]}"
    command = [sys.executable, "-m", "benchmarks.delay", path, str(round_trip / 2)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield f"{parts.scheme}://{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}{parts.path}?sslmode=disable"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    proxy = Proxy(sys.argv[1], float(sys.argv[2]) / 1000)
    print(proxy.port, flush=True)
    proxy.serve()
