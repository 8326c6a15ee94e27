"""What the endpoints of the tenant API share: from a verified token to an answer, or to a problem.

Plain ASGI. The tenant comes from the verified token and from nowhere else, and what can be refused is refused before a
connection is taken.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, time
from email.utils import format_datetime
from typing import NamedTuple, Protocol

from starlette.types import Receive, Scope, Send

from control_plane.api.retries import FAILURES, Attempts
from control_plane.api.streams import send_stream
from control_plane.errors import ControlPlaneError, InvalidInput, MethodNotAllowed, NotFound
from control_plane.identity.middleware import require_tenant
from control_plane.identity.principal import Principal
from control_plane.pools import gate
from control_plane.pools.deprecated_calls import DeprecatedCalls
from control_plane.pools.placement import Placement, Placements
from control_plane.pools.requests import RequestPools
from control_plane.problems import database_error, problem_response
from control_plane.templates import Deprecation, Template, Templates

Header = tuple[bytes, bytes]

JSON = (b"content-type", b"application/json")
HEADERS: list[Header] = [
    JSON,
    (b"cache-control", b"private, no-store"),
    (b"vary", b"Authorization"),
]

_VERSION = re.compile(r"v([1-9][0-9]{0,3})")


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
                raise MethodNotAllowed
            principal = require_tenant(scope)
            status, headers, body, rest = await self.answer(principal, scope, receive)
        except ControlPlaneError as error:
            allow = {"Allow": ", ".join(self.methods)} if isinstance(error, MethodNotAllowed) else None
            await problem_response(error, scope["path"], allow)(scope, receive, send)
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


def api_version_of(template: Template, pattern_version: int, version: str) -> int:
    """The number of an address's `v1` or `default`; raises `NotFound`."""
    if version == "default":
        return template.default_api(pattern_version)
    match = _VERSION.fullmatch(version)
    if match is None:
        raise NotFound("There is no such API version.", hint="Use v1, v2, … or default.")
    return int(match[1])


def deprecation_headers(deprecation: Deprecation | None) -> list[Header]:
    """RFC 9745 and RFC 8594: since when something is deprecated, and when it may be gone."""
    if deprecation is None:
        return []
    announced, sunset = (datetime.combine(day, time(), UTC) for day in (deprecation.announced, deprecation.sunset))
    return [
        (b"deprecation", b"@%d" % announced.timestamp()),
        (b"sunset", format_datetime(sunset, usegmt=True).encode()),
    ]


def require_no_query(scope: Scope) -> None:
    if scope["query_string"]:
        raise InvalidInput("Query parameters are not allowed here.")
