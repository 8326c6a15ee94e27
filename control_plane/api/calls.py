"""Calls of a template's functions: `/api/{version}/rpc/{function}`."""

from __future__ import annotations

import re

from starlette.types import Receive, Scope

from control_plane.api.arguments import arguments
from control_plane.api.endpoints import HEADERS, Answer, Endpoint, caller_of, require_no_query
from control_plane.api.limits import MAX_BODY
from control_plane.api.media import JSON, accepted
from control_plane.api.versions import api_version, deprecation_headers
from control_plane.api.wanted import Media
from control_plane.errors import InvalidInput, MethodNotAllowed, PayloadTooLarge, UnsupportedMediaType
from control_plane.identity.principal import Principal
from control_plane.pools import gate
from control_plane.pools.placement import Placement
from control_plane.problems import internal_error
from control_plane.templates import Function

# The status of a mutation result that says success: false, by its code; any other code is a 422.
REFUSALS = {"forbidden": 403, "not_found": 404, "conflict": 409}

_KEY = re.compile(rb"[\x21-\x7e]{1,200}")  # as the platform API's


class CallFunction(Endpoint):
    """POST /api/{version}/rpc/{function}; of one that only reads also GET, with its input in the query string"""

    methods = ("GET", "HEAD", "POST")

    async def answer(self, principal: Principal, scope: Scope, receive: Receive) -> Answer:
        path, key, posted = scope["path_params"], None, None
        media = accepted(scope["headers"], (JSON, Media.OBJECT.value))
        if scope["method"] == "POST":
            require_no_query(scope)
            key = _idempotency_key(scope)
            posted = await _json_object(scope, receive)

        async def attempt(placement: Placement) -> Answer:
            function = self._function(placement, path["version"], path["function"])
            if posted is None and not function.read_only:
                raise MethodNotAllowed(allow=("POST",))
            document = arguments(scope["query_string"], function.input) if posted is None else posted
            once = None if function.read_only else key
            if once is not None and not self.templates[placement.template].keeps_keys(placement.pattern_version):
                raise _bad_key("is not supported by this tenant's version of the template")
            async with self.pools.connection(placement) as connection:
                result = await gate.call_function(
                    connection,
                    caller_of(principal, placement),
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
                self.calls.count(placement.tenant_id, placement.template, function.api_version, called)
            ending = deprecation_headers(function.api_version, function.deprecation)
            return Answer(status, [(b"content-type", media), *HEADERS[1:], *ending], result.body)

        # With a key the call may be made again although nobody knows whether it has run.
        return await self.attempts.run(principal.tenant_id, attempt, repeatable=key is not None or posted is None)

    def _function(self, placement: Placement, version: str, name: str) -> Function:
        template, pattern_version = self.templates[placement.template], placement.pattern_version
        number = api_version(template, pattern_version, version)
        return template.function(name, api_version=number, pattern_version=pattern_version)


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
