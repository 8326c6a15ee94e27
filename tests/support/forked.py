"""Processes that begin with everything imported: a test that ends hundreds of them cannot wait a second for each."""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import multiprocessing.util  # its own handler waits for all processes, so it has to be registered before ours
from collections.abc import Callable, Coroutine
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["control_plane.service", "control_plane.migrator", "control_plane.operations.worker", "tests.conftest"]
)
_started: list[Forked] = []


@atexit.register
def _kill_all() -> None:
    """Also those that a failed test has left stopped."""
    for process in _started:
        process.kill()


class Forked:
    """A process that runs the coroutine function `target`, which a module must name, with `arguments`."""

    def __init__(self, target: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        self._said, saying = _SERVER.Pipe(duplex=False)
        self._process = _SERVER.Process(target=_run, args=(target, saying, arguments))
        self._process.start()
        saying.close()
        _started.append(self)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    async def said(self) -> object:
        """What the process says next through its first argument, `say`; None when it ends without a word."""
        await _readable(self._said.fileno())
        try:
            return self._said.recv()
        except EOFError:
            return None

    def kill(self) -> None:
        self._process.kill()

    async def wait(self) -> int:
        """The exit code, or the negative number of the signal."""
        await _readable(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


async def _readable(descriptor: int) -> None:
    """A thread that waits would keep the interpreter from ending."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def _run(target: Callable[..., Coroutine[Any, Any, None]], saying: Any, arguments: tuple[object, ...]) -> None:
    asyncio.run(target(saying.send, *arguments))
