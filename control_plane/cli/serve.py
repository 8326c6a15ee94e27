"""`cp serve`: the API and, unless told otherwise, the worker, in one process."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
import uvicorn

from control_plane.cli.run import run
from control_plane.errors import ConfigurationError
from control_plane.service import ControlPlane, open_control_plane
from control_plane.settings import Settings

logger = logging.getLogger(__name__)

GRACE = 10  # seconds that requests in flight get when the service stops

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="CP_HOST or 127.0.0.1")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port.", show_default="CP_PORT or 8000")]


def serve(
    host: Host = None,
    port: Port = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Only the API; `cp worker` runs elsewhere.")] = False,
) -> None:
    """Serve the API; stops gracefully on SIGTERM and Ctrl-C."""
    from control_plane.api.app import create_app  # with the web framework, which no other command needs

    async def work(settings: Settings) -> None:
        log_to_stderr(settings)
        listener = listen(settings)
        with stop_on_signals() as stop:
            async with open_control_plane(settings) as plane:
                await plane.require_safe_posture()
                logger.info("listening on %s", address(listener))
                await serve_until(stop, plane, create_app(plane), listener, worker=not no_worker)

    run(work, host=host, port=port)


class Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process before the databases are closed."""

    def __init__(self, app: Callable[..., Any], ready: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE,
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


async def serve_until(
    stop: asyncio.Event,
    plane: ControlPlane,
    app: Callable[..., Any],
    listener: socket.socket,
    *,
    worker: bool,
    ready: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve `app` on `listener` until `stop` is set; `ready` is awaited once requests are accepted."""
    await plane.verifier.start()
    server = Server(app, ready)

    async def answer() -> None:
        try:
            await server.serve([listener])
        finally:
            stop.set()  # a server that ended by itself takes the rest along

    async def end() -> None:
        await stop.wait()
        server.should_exit = True

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(answer())
            group.create_task(end())
            if worker:
                group.create_task(plane.operations.run_worker(stop))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group


def listen(settings: Settings) -> socket.socket:
    """The bound socket; bound first, so that a port in use is said before a database is started."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}.",
            hint="Choose another port: CP_PORT=8001, or stop the program that uses this one.",
        ) from None
    return listener


def address(listener: socket.socket) -> str:
    """The URL at which a program on this machine reaches `listener`."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def log_to_stderr(settings: Settings) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("control_plane").setLevel(settings.log_level.upper())
