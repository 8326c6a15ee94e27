"""The HTTP server alone, over real sockets: what it refuses, what it waits for, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from control_plane.cli import server as serving
from control_plane.cli.server import Server

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\n"


class Running:
    """A server whose application answers with the body it was sent, once `released` is set."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.released = asyncio.Event()
        self.released.set()
        self.asked = 0
        self.server = Server(self._answer)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        await self.released.wait()
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    async def send(self, data: bytes) -> bytes:
        """What a new connection is answered until the server closes it."""
        reader, writer = await self.connect()
        writer.write(data)
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    opened = Running()
    task = asyncio.create_task(opened.server.run_on(opened.listener))
    await until(lambda: opened.server.started)
    try:
        yield opened
    finally:
        opened.released.set()
        if opened.listener.fileno() == -1:  # the test has ended it
            task.cancel()
        opened.server.should_exit = True
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def until_refused(opened: Running) -> None:
    while True:
        try:
            _, writer = await opened.connect()
        except ConnectionRefusedError:
            return
        writer.close()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x4\r\nabcd\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\nhost: a\n\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["both lengths", "two lengths", "signed length", "unknown coding", "space before the colon", "chunk in hex",
         "folded header", "no carriage return", "NUL", "another protocol"],
)  # fmt: skip
async def test_a_request_that_two_servers_could_read_differently_is_refused(request_: bytes) -> None:
    async with running() as opened:
        answer = await opened.send(request_)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"connection: close\r\n" in answer
        assert opened.asked == 0 or b" 200 " not in answer


async def test_an_endless_head_is_refused() -> None:
    async with running() as opened:
        endless = b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * (serving.MAX_HEAD + 1)
        answer = await opened.send(endless)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert opened.asked == 0
        long = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: " + b"y" * (serving.MAX_HEAD // 2) + b"\r\n\r\n"
        assert (await opened.send(long)).startswith(ANSWER)


@pytest.mark.parametrize("start", [b"", b"G", GET + b"GET / HT"], ids=["nothing", "a letter", "a second request"])
async def test_a_request_that_does_not_come_is_not_waited_for(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "REQUEST_SECONDS", 0.05)
    monkeypatch.setattr(serving, "SWEEP_SECONDS", 0.02)
    async with running() as opened:
        answer = await opened.send(start)
        assert answer.endswith(serving._REFUSALS[408])
        assert answer.startswith(ANSWER) == start.startswith(GET)


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "REQUEST_SECONDS", 0.05)
    monkeypatch.setattr(serving, "SWEEP_SECONDS", 0.02)
    async with running() as opened:
        with suppress(ConnectionResetError):  # closed in one way or the other
            assert await opened.send(POST + b"ab") == b""
        await until(lambda: not opened.server.server_state.tasks)


async def test_a_request_that_takes_long_to_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "REQUEST_SECONDS", 0.01)
    monkeypatch.setattr(serving, "SWEEP_SECONDS", 0.01)
    async with running() as opened:
        opened.released.clear()
        reader, writer = await opened.connect()
        writer.write(POST + b"abcd")
        await until(lambda: opened.asked == 1)
        await asyncio.sleep(0.05)  # several sweeps
        opened.released.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(ANSWER)
        assert await reader.readexactly(4) == b"abcd"
        writer.close()


async def test_the_end_answers_what_has_begun_and_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LINGER", 60.0)
    monkeypatch.setattr(serving, "GRACE", 60.0)
    async with running() as opened:
        fresh, used, half = [await opened.connect() for _ in range(3)]
        used[1].write(GET)
        assert b"connection: close" not in await used[0].readuntil(b"\r\n\r\n")
        half[1].write(POST + b"ab")
        await until(lambda: opened.asked == 2)
        opened.server.should_exit = True
        await until_refused(opened)
        half[1].write(b"cd")
        for (reader, writer), rest in ((half, b""), (used, GET), (fresh, GET)):
            writer.write(rest)
            answer = await reader.read()
            assert answer.startswith(ANSWER)
            assert b"\r\nconnection: close\r\n" in answer
            assert answer.endswith(b"\r\n\r\nabcd" if reader is half[0] else b"\r\n\r\n")
            writer.close()
        await until(lambda: not opened.server.server_state.connections)


async def test_the_end_does_not_wait_long_for_connections_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LINGER", 0.05)
    monkeypatch.setattr(serving, "GRACE", 60.0)
    async with running() as opened:
        reader, writer = await opened.connect()
        await until(lambda: len(opened.server.server_state.connections) == 1)
        opened.server.should_exit = True
        assert await reader.read() == b""
        writer.close()


async def test_the_end_cuts_off_what_takes_longer_than_its_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "GRACE", 0.05)
    async with running() as opened:
        opened.released.clear()
        reader, writer = await opened.connect()
        writer.write(GET)
        await until(lambda: opened.asked == 1)
        opened.server.should_exit = True
        answer = await reader.read()
        assert not answer.startswith(ANSWER)
        writer.close()


async def test_connections_that_nobody_has_accepted_yet_are_served_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LINGER", 60.0)
    async with running() as opened:
        waiting = []
        for _ in range(5):  # without letting the loop accept them
            client = socket.create_connection(opened.address)
            client.sendall(GET)
            waiting.append(client)
        end = asyncio.create_task(opened.server.shutdown([opened.listener]))
        for client in waiting:
            client.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=client)
            assert (await reader.read()).startswith(ANSWER)
            writer.close()
        await end
