"""Server-sent events: how one is written, and how many streams of them a process keeps open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from control_plane.errors import TooManyStreams

MOST = 100  # streams of one process
ALIVE = b": alive\n\n"  # a comment, so that nobody on the way takes a quiet stream for a dead one


def event(name: str, data: dict[str, Any], id_: str) -> bytes:
    """One event. JSON has no line break of its own, so that `data` is one line."""
    return f"id: {id_}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Streams:
    """The streams of one process. `ending` is set when it drains: they would not end by themselves."""

    def __init__(self, most: int = MOST) -> None:
        self.ending = asyncio.Event()
        self._most = most
        self._open = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises `TooManyStreams`."""
        if self._open >= self._most:
            raise TooManyStreams
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class EventStream(StreamingResponse):
    """Sends `events` for as long as the client stays."""

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.place():
            await super().__call__(scope, receive, send)
