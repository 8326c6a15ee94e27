"""The HTTP server: uvicorn with httptools, with limits of its own for slow and endless requests, and a drain."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

logger = logging.getLogger(__name__)

GRACE = 10.0  # seconds that requests in flight get once nothing new is accepted
LINGER = 1.0  # seconds that a connection without a request stays open then, for what is under way on the wire
MAX_HEAD = 65_536  # bytes of a request's first line and headers
REQUEST_SECONDS = 30.0  # for a request to arrive in full
SWEEP_SECONDS = 1.0

_REFUSALS = {
    408: b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
}


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which alone would wait for ever for the rest of a request, and take any number of headers.

    A clock is read only where a request does not arrive in one piece; the server's sweep looks at it.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))  # uvloop's is no subclass
        self._head = 0  # bytes of a head that is not complete yet
        self._in_head = self._incomplete = False
        self._since: float | None = self.loop.time()  # since when something is waited for that has not come

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._incomplete:
            self._since = None
        elif self._since is None:
            self._since = self.loop.time()
        if self._in_head:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse(431)

    def on_message_begin(self) -> None:
        self._in_head = self._incomplete = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._incomplete = False
        super().on_message_complete()

    def expire(self, before: float) -> None:
        """End it if it has been waiting since `before` for a request, or for the rest of one."""
        if self._since is not None and self._since < before:
            if self._answering:  # the caller's endpoint hears that its body will never be complete
                self.transport.abort()
            else:
                self._refuse(408)

    def shutdown(self) -> None:
        """Say `Connection: close` with the answer that is being made; uvicorn would also close what is idle."""
        if self._answering:
            super().shutdown()

    def close_if_idle(self) -> None:
        if not (self._answering or self._incomplete):
            self.transport.close()

    @property
    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _refuse(self, status: int) -> None:
        if not self.transport.is_closing():
            self.transport.write(_REFUSALS[status])
            self.transport.close()


class Server(uvicorn.Server):
    """Serves `app` in this process, beside its other tasks, until `should_exit`; `ready` is awaited at the beginning.

    Signals are its owner's: uvicorn would end the process before the databases are closed.
    """

    def __init__(self, app: Callable[..., Any], ready: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                loop="uvloop",
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nothing here depends on who the client is
            )
        )
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready is not None:
            await self._ready()

    async def run_on(self, listener: socket.socket) -> None:
        """Serve on `listener`, which is closed at the end. When cancelled, all requests are, at once."""
        sweep = asyncio.create_task(self._sweep(), name="sweep")
        try:
            await self.serve([listener])
        finally:
            sweep.cancel()
            await self._abandon()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, answer what is there with `Connection: close`, and wait for up to `GRACE` seconds.

        A connection without a request is closed only after `LINGER` seconds: what a client has sent before it could
        know is answered.
        """
        await self._stop_listening(sockets or [])
        # Of requests to come; uvicorn copies these into each. Those in flight are told by `Connection.shutdown()`.
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for connection in self._connections():
            connection.shutdown()
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self.server_state.connections or self.server_state.tasks:
            waited = loop.time() - began
            if waited > GRACE:
                logger.error("requests in flight are cut off: %d", len(self.server_state.tasks))
                return
            if waited > LINGER:
                for connection in self._connections():
                    connection.close_if_idle()
            await asyncio.sleep(0.02)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        # A closed listener resets the connections that nobody has accepted yet, so a copy outlives it for these.
        copies = [each.dup() for each in sockets]
        for server in self.servers:
            server.close()
        for each in sockets:
            each.close()
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)  # the loop lets go of them
        for copy in copies:
            copy.setblocking(False)
            with copy, suppress(BlockingIOError, ConnectionAbortedError):
                while True:
                    accepted, _ = copy.accept()
                    accepted.setblocking(False)
                    await loop.connect_accepted_socket(self._protocol, accepted)

    def _protocol(self) -> Connection:
        return Connection(config=self.config, server_state=self.server_state, app_state={})

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for connection in self._connections():
                connection.expire(before=loop.time() - REQUEST_SECONDS)

    async def _abandon(self) -> None:
        for connection in self._connections():
            connection.transport.abort()
        await asyncio.sleep(0)  # so that nobody answers any more
        logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connections(self) -> list[Connection]:
        return [each for each in self.server_state.connections if isinstance(each, Connection)]


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)
