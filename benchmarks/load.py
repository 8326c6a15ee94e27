"""`python -m benchmarks.load`: keeps a server busy over keep-alive connections and measures what it answers.

Reads a `Task` as JSON from standard input and writes a `Measured` to standard output. It knows just enough of HTTP/1.1
for the responses at hand, so that it takes little of the processor that the server needs, and the same from everybody.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from itertools import cycle
from typing import cast

import uvloop
from pydantic import BaseModel

END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"content-length:"


class Task(BaseModel):
    """`requests` are whole HTTP requests, taken in turn; times in seconds."""

    port: int
    requests: list[str]
    connections: int
    warmup: float
    seconds: float


class Measured(BaseModel):
    """Over the measured seconds only; latencies in milliseconds."""

    requests: int
    per_second: float
    p50: float
    p99: float


def measure(task: Task) -> Measured:
    """Run the load in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=task.model_dump_json(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Measured.model_validate_json(done.stdout)


def fetch(port: int, request: str) -> bytes:
    """The body of one answer. Raises `ValueError` unless it is a 200."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request.encode())
        received = b""
        while (end := received.find(END_OF_HEAD)) < 0 or len(received) < end + 4 + _content_length(received[:end]):
            received += connection.recv(65536)
        return received[end + 4 :]


class _Connection(asyncio.Protocol):
    """One request at a time; the next one as soon as the response is whole."""

    def __init__(self, requests: list[bytes], offset: int, latencies: list[float], closed: asyncio.Event) -> None:
        self._requests = cycle([*requests[offset:], *requests[:offset]])
        self._latencies = latencies
        self._closed = closed
        self._buffer = b""
        self._needed = 0  # bytes of the whole response, 0 = not known yet
        self._sent_at = 0.0
        self.draining = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._needed and (end := self._buffer.find(END_OF_HEAD)) >= 0:
            self._needed = end + 4 + _content_length(self._buffer[:end])
        if not self._needed or len(self._buffer) < self._needed:
            return
        self._latencies.append(time.perf_counter() - self._sent_at)
        self._buffer, self._needed = b"", 0
        if self.draining:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.draining:
            raise ConnectionError("the server closed a connection") from error
        self._closed.set()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))


def _content_length(head: bytes) -> int:
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ValueError(f"not a 200: {head.decode()}")
    at = head.lower().index(LENGTH) + len(LENGTH)
    return int(head[at:].partition(b"\r\n")[0])


async def _run(task: Task) -> Measured:
    loop = asyncio.get_running_loop()
    failure: asyncio.Future[None] = loop.create_future()

    def fail(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if not failure.done():
            failure.set_exception(error if isinstance(error, Exception) else RuntimeError(str(context["message"])))

    loop.set_exception_handler(fail)
    requests = [request.encode() for request in task.requests]
    latencies: list[float] = []
    opened: list[tuple[_Connection, asyncio.Event]] = []
    for number in range(task.connections):
        closed = asyncio.Event()
        connection = _Connection(requests, number * len(requests) // task.connections, latencies, closed)
        await loop.create_connection(lambda connection=connection: connection, "127.0.0.1", task.port)  # type: ignore[misc]
        opened.append((connection, closed))

    await asyncio.wait({failure}, timeout=task.warmup)
    latencies.clear()
    began = time.perf_counter()
    await asyncio.wait({failure}, timeout=task.seconds)
    if failure.done():
        failure.result()
    seconds = time.perf_counter() - began
    found = sorted(latencies)
    for connection, _ in opened:
        connection.draining = True
    for _, closed in opened:
        await closed.wait()
    failure.cancel()
    return Measured(
        requests=len(found),
        per_second=len(found) / seconds,
        p50=found[len(found) // 2] * 1000,
        p99=found[len(found) * 99 // 100] * 1000,
    )


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(_run(Task.model_validate_json(sys.stdin.read()))).model_dump_json())
