"""A proxy before PostgreSQL that sees what the client sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.servers import Server


class Proxy:
    """`sent` holds the type of each message that clients sent since the last `clear()`, in order.

    A round trip ends with a Sync (`S`), a Flush (`H`) or a simple Query (`Q`).
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.port = 0
        self.sent: list[str] = []
        self.connections = 0
        self.paused = asyncio.Event()  # set: traffic flows
        self.paused.set()
        self._serving: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """End what is still connected, also when traffic is paused."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def clear(self) -> None:
        self.sent.clear()

    @property
    def round_trips(self) -> int:
        return sum(kind in "SHQ" for kind in self.sent)

    @property
    def dsn(self) -> str:
        parts = urlsplit(self._server.dsn)
        return f"postgresql://{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self.port}{parts.path}?sslmode=disable"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        upstream_reader, upstream_writer = await self._connect()
        back = asyncio.create_task(self._copy(upstream_reader, writer))
        try:
            start = await reader.readexactly(4)
            upstream_writer.write(start + await reader.readexactly(int.from_bytes(start) - 4))
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
                self.sent.append(chr(head[0]))
                await self.paused.wait()
                upstream_writer.write(head + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            upstream_writer.close()
            await back
            await _closed(writer)
            await _closed(upstream_writer)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._server.dsn)
        options = parse_qs(parts.query)
        host = unquote(parts.hostname or options.get("host", ["localhost"])[0])
        port = parts.port or int(options.get("port", ["5432"])[0])
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def open_proxy(server: Server) -> AsyncIterator[Proxy]:
    proxy = Proxy(server)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        await proxy.aclose()
