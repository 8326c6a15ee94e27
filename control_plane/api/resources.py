"""The tenant API: token → placement → connection → one gated statement → bytes.

Plain ASGI endpoints: of a read nothing is parsed, validated or built in Python but the headers. The tenant comes from
the verified token and from nowhere else, and what can be refused is refused before a connection is taken.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import NamedTuple, Protocol
from uuid import UUID

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from control_plane.api.arguments import arguments
from control_plane.api.limits import MAX_BODY
from control_plane.api.media import JSON, accepted
from control_plane.api.query import parse_query, plain_listing
from control_plane.api.retries import FAILURES, Attempts
from control_plane.api.versions import Header, api_version, deprecation_headers
from control_plane.api.wanted import OBJECT, Wanted, wanted
from control_plane.errors import (
    ControlPlaneError,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    NotSingular,
    PayloadTooLarge,
    RangeNotSatisfiable,
    UnsupportedMediaType,
)
from control_plane.identity.middleware import require_tenant
from control_plane.identity.principal import Principal
from control_plane.pools import gate
from control_plane.pools.deprecated_calls import DeprecatedCalls
from control_plane.pools.placement import Placement, Placements
from control_plane.pools.requests import RequestPools
from control_plane.problems import database_error, internal_error, problem_response
from control_plane.templates import Function, Resource, Templates

# The status of a mutation result that says success: false, by its code; any other code is a 422.
REFUSALS = {"forbidden": 403, "not_found": 404, "conflict": 409}

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_KEY = re.compile(rb"[\x21-\x7e]{1,200}")  # as the platform API's
HEADERS = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"private, no-store"),
    (b"vary", b"Authorization"),
]


class Services(Protocol):
    """What the routes need of the control plane."""

    templates: Templates
    placements: Placements
    request_pools: RequestPools
    deprecated_calls: DeprecatedCalls


def routes(services: Services) -> list[Route]:
    """The routes below /api. `scope["state"]` has to hold the principal."""
    # Without methods: an endpoint answers the wrong ones itself, or /rpc/x would fall through to /{resource}/{id}.
    return [
        Route("/api/{version}/rpc/{function}", CallFunction(services), name="call_function"),
        Route("/api/{version}/{resource}", ReadList(services), name="read_list"),
        Route("/api/{version}/{resource}/{id}", ReadOne(services), name="read_one"),
    ]


class Answer(NamedTuple):
    status: int
    headers: list[Header]
    body: bytes


class Exposed(NamedTuple):
    """A resource as one API version of a home serves it, with the headers of its answers."""

    resource: Resource
    headers: list[Header]
    plain: gate.Listing  # what is read when nothing is asked for


class Endpoint(ABC):
    """One kind of call: from the scope to an `Answer`, or to a problem."""

    methods: tuple[str, ...] = ("GET", "HEAD")

    def __init__(self, services: Services) -> None:
        self._templates = services.templates
        self._pools = services.request_pools
        self._attempts = Attempts(services.placements)
        self._calls = services.deprecated_calls
        self._exposed = lru_cache(maxsize=1024)(self._find_resource)

    @abstractmethod
    async def answer(self, principal: Principal, scope: Scope, receive: Receive) -> Answer: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        try:
            if method not in self.methods:
                raise MethodNotAllowed(allow=self.methods)
            status, headers, body = await self.answer(require_tenant(scope), scope, receive)
        except ControlPlaneError as error:
            await problem_response(error, scope["path"])(scope, receive, send)
            return
        except FAILURES as error:
            await problem_response(database_error(error), scope["path"])(scope, receive, send)
            return
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    def _find_resource(self, template: str, pattern_version: int, version: str, name: str) -> Exposed:
        found = self._templates[template]
        number = api_version(found, pattern_version, version)
        resource = found.resource(name, api_version=number, pattern_version=pattern_version)
        ending = deprecation_headers(number, resource.deprecation, listed=resource.counted)
        return Exposed(resource, HEADERS + ending, plain_listing(resource))

    def _count(self, placement: Placement, resource: Resource) -> None:
        if resource.counted:
            self._calls.count(placement.tenant_id, placement.template, resource.api_version, resource.name)


class ReadList(Endpoint):
    """GET /api/{version}/{resource}"""

    async def answer(self, principal: Principal, scope: Scope, receive: Receive) -> Answer:
        path, query = scope["path_params"], scope["query_string"]
        asked = wanted(scope["headers"], query)

        async def attempt(placement: Placement) -> tuple[gate.Listing, list[Header], gate.Page]:
            resource, headers, plain = self._exposed(
                placement.template, placement.pattern_version, path["version"], path["resource"]
            )
            listing = asked.applied_to(parse_query(query, resource) if query else plain)
            async with self._pools.connection(placement) as connection:
                page = await gate.read_list(
                    connection,
                    _caller(principal, placement),
                    placement.schema_name,
                    resource.api_version,
                    resource.name,
                    listing,
                )
            self._count(placement, resource)
            return listing, headers, page

        listing, headers, page = await self._attempts.run(principal.tenant_id, attempt, repeatable=True)
        return _listed(asked, listing.offset, headers, page)


class ReadOne(Endpoint):
    """GET /api/{version}/{resource}/{id}"""

    async def answer(self, principal: Principal, scope: Scope, receive: Receive) -> Answer:
        path = scope["path_params"]
        no_query(scope)
        if _UUID.fullmatch(path["id"]) is None:
            raise InvalidInput("The id is not a uuid.")
        id_ = UUID(path["id"])

        async def attempt(placement: Placement) -> Answer:
            resource, headers, _ = self._exposed(
                placement.template, placement.pattern_version, path["version"], path["resource"]
            )
            async with self._pools.connection(placement) as connection:
                body = await gate.read_one(
                    connection,
                    _caller(principal, placement),
                    placement.schema_name,
                    resource.api_version,
                    resource.name,
                    id_,
                )
            self._count(placement, resource)
            return Answer(200, headers, body) if body is not None else _ABSENT

        answer = await self._attempts.run(principal.tenant_id, attempt, repeatable=True)
        if answer is _ABSENT:
            raise NotFound("There is no such document.")
        return answer


class CallFunction(Endpoint):
    """POST /api/{version}/rpc/{function}; of one that only reads also GET, with its input in the query string"""

    methods = ("GET", "HEAD", "POST")

    async def answer(self, principal: Principal, scope: Scope, receive: Receive) -> Answer:
        path, key, posted = scope["path_params"], None, None
        media = accepted(scope["headers"], (JSON, OBJECT))
        if scope["method"] == "POST":
            no_query(scope)
            key = _idempotency_key(scope)
            posted = await _json_object(scope, receive)

        async def attempt(placement: Placement) -> Answer:
            function = self._function(placement, path["version"], path["function"])
            if posted is None and not function.read_only:
                raise MethodNotAllowed(allow=("POST",))
            document = arguments(scope["query_string"], function.input) if posted is None else posted
            once = None if function.read_only else key
            if once is not None and not self._templates[placement.template].keeps_keys(placement.pattern_version):
                raise _bad_key("is not supported by this tenant's version of the template")
            async with self._pools.connection(placement) as connection:
                result = await gate.call_function(
                    connection,
                    _caller(principal, placement),
                    placement.schema_name,
                    function.api_version,
                    function.name,
                    document,
                    read_only=function.read_only,
                    key=once,
                )
            if result.success is None or result.body is None:
                raise internal_error(TypeError(f"{function.name} of {placement.template} answered no mutation result"))
            status = 200 if result.success else REFUSALS.get(result.code or "", 422)
            if function.deprecation is not None:
                called = f"rpc/{function.name}"
                self._calls.count(placement.tenant_id, placement.template, function.api_version, called)
            ending = deprecation_headers(function.api_version, function.deprecation)
            return Answer(status, [(b"content-type", media), *HEADERS[1:], *ending], result.body)

        # With a key the call may be made again although nobody knows whether it has run.
        return await self._attempts.run(principal.tenant_id, attempt, repeatable=key is not None or posted is None)

    def _function(self, placement: Placement, version: str, name: str) -> Function:
        template, pattern_version = self._templates[placement.template], placement.pattern_version
        number = api_version(template, pattern_version, version)
        return template.function(name, api_version=number, pattern_version=pattern_version)


_ABSENT = Answer(404, [], b"")


def _caller(principal: Principal, placement: Placement) -> gate.Caller:
    return gate.Caller(placement.tenant_id, principal.user_id, placement.epoch, principal.roles)


def _listed(asked: Wanted, offset: int, headers: list[Header], page: gate.Page) -> Answer:
    """The page as PostgREST answers it: 206 for a part of what is known to be more, Content-Range always."""
    body, rows, total = page
    if total is not None and offset > total:
        raise RangeNotSatisfiable(total=total)
    shown = b"%d-%d" % (offset, offset + rows - 1) if rows else b"*"
    extra = [(b"content-range", b"%b/%b" % (shown, b"*" if total is None else b"%d" % total))]
    if total is not None:
        extra.append((b"preference-applied", b"count=exact"))
    if asked.single:
        if rows != 1:
            raise NotSingular(details="The result contains 0 rows" if rows == 0 else "The result contains several rows")
        return Answer(200, [(b"content-type", OBJECT), *headers[1:], *extra], body[1:-1])
    return Answer(200 if total is None or rows >= total else 206, headers + extra, body)


def no_query(scope: Scope) -> None:
    """Raises `InvalidInput` for anything but `select=*`, which PostgREST's clients add to every document."""
    if scope["query_string"] not in (b"", b"select=*", b"select=%2A"):
        raise InvalidInput("Query parameters are not allowed here.")


def _idempotency_key(scope: Scope) -> str | None:
    given: list[bytes] = [value for name, value in scope["headers"] if name == b"idempotency-key"]
    if not given:
        return None
    if len(given) > 1:
        raise _bad_key("must be given once")
    if _KEY.fullmatch(given[0]) is None:
        raise _bad_key("must be 1 to 200 visible ASCII characters")
    return given[0].decode("ascii")


def _bad_key(problem: str) -> InvalidInput:
    return InvalidInput(
        f"The header Idempotency-Key {problem}.", errors=[{"header": "Idempotency-Key", "message": problem}]
    )


async def _json_object(scope: Scope, receive: Receive) -> str:
    """The text of the body. The database parses it: what begins as an object is one, or it is no JSON at all."""
    content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise UnsupportedMediaType(hint="Send Content-Type: application/json.")
    body = await _body(receive)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise InvalidInput("The body is not UTF-8.") from None
    if not text.lstrip(" \t\r\n").startswith("{"):
        raise InvalidInput("The body must be a JSON object.")
    return text


async def _body(receive: Receive) -> bytes:
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidInput("The body is incomplete.")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY:
            raise PayloadTooLarge(f"The body is larger than {MAX_BODY} bytes.")
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)
