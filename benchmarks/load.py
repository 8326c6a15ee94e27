"""`python -m benchmarks.load`: keeps a server busy over keep-alive connections and measures what it answers.

Reads a `Task` as JSON from standard input and writes a `Measured` to standard output. It knows just enough of HTTP/1.1
for the responses at hand, so that it takes little of the processor that the server needs, and the same from everybody.
"""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import cast

import uvloop
from pydantic import BaseModel

END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"content-length:"
REFUSED = b"HTTP/1.1 503 "


class Task(BaseModel):
    """`requests` are whole HTTP requests, taken in turn, or at random if `seed` is given; times in seconds."""

    ports: list[int]  # the connections are spread over them
    requests: list[str]
    connections: int
    warmup: float
    seconds: float
    seed: int | None = None


class Measured(BaseModel):
    """Over the measured seconds only, but for `answered`; latencies in milliseconds."""

    requests: int
    refused: int  # of the requests, those that were answered 503
    per_second: float
    p50: float
    p99: float
    answered: int  # from the very beginning, so that what the server used can be divided by it


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


@dataclass
class _Answers:
    latencies: list[float] = field(default_factory=list)  # seconds
    refused: int = 0
    before: int = 0  # those of the warm-up

    def begin(self) -> None:
        self.before += len(self.latencies)
        self.latencies.clear()
        self.refused = 0


def ask_all(port: int, requests: list[str], connections: int) -> None:
    """Each of the requests once, as fast as may be."""

    async def ask(left: Iterator[str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in left:
            writer.write(request.encode())
            await reader.readexactly(_content_length(await reader.readuntil(END_OF_HEAD)))
        writer.close()

    async def run() -> None:
        left = iter(requests)
        await asyncio.gather(*(ask(left) for _ in range(connections)))

    asyncio.run(run())


class _Connection(asyncio.Protocol):
    """One request at a time; the next one as soon as the response is whole."""

    def __init__(self, requests: Iterator[bytes], answers: _Answers, closed: asyncio.Event) -> None:
        self._requests = requests
        self._answers = answers
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
            self._answers.refused += self._buffer.startswith(REFUSED)
            self._needed = end + 4 + _content_length(self._buffer[:end], refusable=True)
        if not self._needed or len(self._buffer) < self._needed:
            return
        self._answers.latencies.append(time.perf_counter() - self._sent_at)
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


def _content_length(head: bytes, *, refusable: bool = False) -> int:
    if not (head.startswith(b"HTTP/1.1 200 ") or (refusable and head.startswith(REFUSED))):
        raise ValueError(f"not a 200: {head.decode()}")
    at = head.lower().index(LENGTH) + len(LENGTH)
    return int(head[at:].partition(b"\r\n")[0])


def _order(task: Task, requests: list[bytes], number: int) -> Iterator[bytes]:
    """What connection `number` asks for, without end: each begins elsewhere."""
    if task.seed is None:
        offset = number * len(requests) // task.connections
        return cycle([*requests[offset:], *requests[:offset]])
    choose = random.Random(f"{task.seed}.{number}").choice
    return (choose(requests) for _ in count())


async def _run(task: Task) -> Measured:
    loop = asyncio.get_running_loop()
    failure: asyncio.Future[None] = loop.create_future()

    def fail(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if not failure.done():
            failure.set_exception(error if isinstance(error, Exception) else RuntimeError(str(context["message"])))

    loop.set_exception_handler(fail)
    requests = [request.encode() for request in task.requests]
    answers = _Answers()
    opened: list[tuple[_Connection, asyncio.Event]] = []
    for number in range(task.connections):
        closed = asyncio.Event()
        connection = _Connection(_order(task, requests, number), answers, closed)
        port = task.ports[number % len(task.ports)]
        await loop.create_connection(lambda connection=connection: connection, "127.0.0.1", port)  # type: ignore[misc]
        opened.append((connection, closed))

    await asyncio.wait({failure}, timeout=task.warmup)
    answers.begin()
    began = time.perf_counter()
    await asyncio.wait({failure}, timeout=task.seconds)
    if failure.done():
        failure.result()
    seconds = time.perf_counter() - began
    found, refused = sorted(answers.latencies), answers.refused
    for connection, _ in opened:
        connection.draining = True
    for _, closed in opened:
        await closed.wait()
    failure.cancel()
    return Measured(
        requests=len(found),
        refused=refused,
        per_second=len(found) / seconds,
        p50=found[len(found) // 2] * 1000,
        p99=found[len(found) * 99 // 100] * 1000,
        answered=answers.before + len(answers.latencies),
    )


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(_run(Task.model_validate_json(sys.stdin.read()))).model_dump_json())
