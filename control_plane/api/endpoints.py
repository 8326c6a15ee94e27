"""What the endpoints of the tenant API share: from a verified token to an answer, or to a problem.

Plain ASGI. The tenant comes from the verified token and from nowhere else, and what can be refused is refused before a
connection is taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol

from starlette.types import Receive, Scope, Send

from control_plane.api.media import JSON
from control_plane.api.retries import FAILURES, Attempts
from control_plane.api.streams import send_stream
from control_plane.api.versions import Header
from control_plane.errors import ControlPlaneError, InvalidInput, MethodNotAllowed
from control_plane.identity.middleware import require_tenant
from control_plane.identity.principal import Principal
from control_plane.pools import gate
from control_plane.pools.deprecated_calls import DeprecatedCalls
from control_plane.pools.placement import Placement, Placements
from control_plane.pools.requests import RequestPools
from control_plane.problems import database_error, problem_response
from control_plane.templates import Templates

JSON_TYPE = (b"content-type", JSON)
HEADERS: list[Header] = [
    JSON_TYPE,
    (b"cache-control", b"private, no-store"),
    (b"vary", b"Authorization"),
]


class Services(Protocol):
    """What the routes need of the control plane."""

    templates: Templates
    placements: Placements
    request_pools: RequestPools
    deprecated_calls: DeprecatedCalls


class Answer(NamedTuple):
    """`body` is all of it, or what comes before `rest`: then the answer has no length, and each part is read late."""

    status: int
    headers: list[Header]
    body: bytes
    rest: AsyncGenerator[bytes, None] | None = None


class Endpoint(ABC):
    """One kind of call: from the scope to an `Answer`, or to a problem."""

    methods: tuple[str, ...] = ("GET", "HEAD")

    def __init__(self, services: Services) -> None:
        self.templates = services.templates
        self.pools = services.request_pools
        self.attempts = Attempts(services.placements)
        self.calls = services.deprecated_calls

    @abstractmethod
    async def answer(self, principal: Principal, scope: Scope, receive: Receive) -> Answer: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        try:
            if method not in self.methods:
                raise MethodNotAllowed(allow=self.methods)
            principal = require_tenant(scope)
            status, headers, body, rest = await self.answer(principal, scope, receive)
        except ControlPlaneError as error:
            await problem_response(error, scope["path"])(scope, receive, send)
            return
        except FAILURES as error:
            await problem_response(database_error(error), scope["path"])(scope, receive, send)
            return
        if rest is not None:
            start = {"type": "http.response.start", "status": status, "headers": headers}
            await send_stream(principal, scope, receive, send, start, body, rest)
            return
        if status != 304:  # of which a length would be that of the 200
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


def caller_of(principal: Principal, placement: Placement) -> gate.Caller:
    return gate.Caller(placement.tenant_id, principal.user_id, placement.epoch, principal.roles)


def require_no_query(scope: Scope) -> None:
    """Raises `InvalidInput` for anything but `select=*`, which PostgREST's clients add to every document."""
    if scope["query_string"] not in (b"", b"select=*", b"select=%2A"):
        raise InvalidInput("Query parameters are not allowed here.")
