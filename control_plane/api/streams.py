"""Answers that are sent in parts as they are read, no faster than they are received.

A status that has been sent cannot be taken back. What goes wrong after it cuts the answer off: the connection ends
before the body does, which every client takes for a failure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.types import Receive, Scope, Send

from control_plane.api.retries import FAILURES
from control_plane.errors import ControlPlaneError, InvalidToken
from control_plane.identity.principal import Principal

logger = logging.getLogger(__name__)

_FAILURES: tuple[type[BaseException], ...] = (ControlPlaneError, *FAILURES)


class CutOff(Exception):
    """An answer ends before its end. Raised to the server, which then closes the connection."""


async def send_stream(
    principal: Principal,
    scope: Scope,
    receive: Receive,
    send: Send,
    start: dict[str, Any],
    body: bytes,
    rest: AsyncGenerator[bytes, None],
) -> None:
    """Send `start`, `body` and then each part of `rest`, which is read when the one before it has been taken.

    Ends quietly when the client leaves. Raises `CutOff` when a part cannot be read, or when the token expires: then
    also in the middle of a part that the client is slow to take.
    """
    leaving = asyncio.create_task(_left(receive))
    try:
        async with asyncio.timeout(max(0.0, principal.expires_at - time.time())) as lifetime, aclosing(rest):
            await send(start)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            async for part in rest:
                if leaving.done():
                    return
                await send({"type": "http.response.body", "body": part, "more_body": True})
    except _FAILURES as error:
        if leaving.done():
            return
        found = InvalidToken("The token has expired.") if lifetime.expired() else error
        reason = found.code if isinstance(found, ControlPlaneError) else type(found).__name__
        logger.warning("%s of tenant %s was cut off: %s", scope["path"], principal.tenant_id, reason)
        raise CutOff(reason) from error
    finally:
        leaving.cancel()
    await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
