"""`cp serve`: the API and, unless told otherwise, the worker, in one process."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli.run import run
from control_plane.cli.server import Server
from control_plane.errors import ConfigurationError
from control_plane.operations.upkeep import pause
from control_plane.service import ControlPlane, open_control_plane
from control_plane.settings import Settings

if TYPE_CHECKING:
    from control_plane.api.app import Application

logger = logging.getLogger(__name__)

HURRY = 1.0  # seconds that each step of the end may take after a second signal

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="CP_HOST or 127.0.0.1")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port.", show_default="CP_PORT or 8000")]


def serve(
    host: Host = None,
    port: Port = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Only the API; `cp worker` runs elsewhere.")] = False,
) -> None:
    """Serve the API; SIGTERM or Ctrl-C finishes what has begun, a second one ends at once."""
    from control_plane.api.app import create_app  # with the web framework, which no other command needs

    async def work(settings: Settings) -> None:
        log_to_stderr(settings)
        listener = listen(settings)
        with stop_on_signals() as stop:
            async with open_control_plane(settings) as plane:
                await plane.require_safe_posture()
                logger.info("listening on %s", address(listener))
                app, drain = create_app(plane), plane.settings.drain_seconds
                await serve_until(stop, plane, app, listener, worker=not no_worker, drain=drain)

    run(work, host=host, port=port)


async def serve_until(
    stop: asyncio.Event,
    plane: ControlPlane,
    app: Application,
    listener: socket.socket,
    *,
    worker: bool,
    drain: float = 0.0,
    ready: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve `app` on `listener` until `stop` is set; `ready` is awaited once requests are accepted.

    Then readiness goes, for `drain` seconds requests are served as before, so that load balancers notice, the listener
    closes, streams end and what is left is answered. The worker stops after the last request.
    """
    await plane.start()
    server, served = Server(app, ready), asyncio.Event()

    async def answer() -> None:
        try:
            await server.run_on(listener)
        finally:
            served.set()
            stop.set()  # a server that ended by itself takes the rest along

    async def end() -> None:
        await stop.wait()
        app.drain()
        await pause(served, drain)
        app.end_streams()
        server.should_exit = True

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(answer())
            group.create_task(end())
            if worker:
                group.create_task(plane.operations.run_worker(served))
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
    """An event that the first SIGTERM or SIGINT sets. A second one cancels the task, and so ends the block at once.

    The cancellation is repeated, so that nothing on the way out takes long; a third signal kills.
    """
    stop = asyncio.Event()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    numbers = (signal.SIGTERM, signal.SIGINT)
    repeating: list[asyncio.TimerHandle] = []

    def first() -> None:
        stop.set()
        for number in numbers:
            loop.add_signal_handler(number, second)

    def second() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
        cancel()

    def cancel() -> None:
        task.cancel()
        repeating[:] = [loop.call_later(HURRY, cancel)]

    for number in numbers:
        loop.add_signal_handler(number, first)
    try:
        yield stop
    finally:
        for timer in repeating:
            timer.cancel()
        for number in numbers:
            loop.remove_signal_handler(number)


def log_to_stderr(settings: Settings) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("control_plane").setLevel(settings.log_level.upper())
