"""Errors as answers: RFC 9457 problem documents that also carry `code`, `message`, `details` and `hint`.

What a database says stays here: no SQL, no row, no constraint and no object name reaches a client.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import asyncpg
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from control_plane.errors import (
    BadRequest,
    Conflict,
    ControlPlaneError,
    Forbidden,
    InvalidInput,
    InvalidToken,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RangeNotSatisfiable,
    StaleEpoch,
    TenantMoving,
    TenantNotFound,
    TenantSuspended,
    TimedOut,
    Unauthenticated,
    Unavailable,
    Unprocessable,
)
from control_plane.pools.connect import UNREACHABLE

logger = logging.getLogger(__name__)

_MALFORMED = "A value has the wrong form or is out of range."

# SQLSTATE → the error and its message; the message is ours, because the database's may quote rows and names.
_STATES: dict[str, tuple[type[ControlPlaneError], str | None]] = {
    "TN400": (BadRequest, "The tenant context is incomplete."),
    "TN403": (TenantSuspended, None),
    "TN404": (TenantNotFound, None),
    "TN409": (StaleEpoch, None),
    "TN503": (TenantMoving, "The tenant is not ready for requests."),
    "22000": (InvalidInput, _MALFORMED),
    "22003": (InvalidInput, _MALFORMED),
    "22004": (InvalidInput, "A value is missing."),
    "22007": (InvalidInput, _MALFORMED),
    "22008": (InvalidInput, _MALFORMED),
    "22021": (InvalidInput, _MALFORMED),
    "22023": (InvalidInput, _MALFORMED),
    "22025": (InvalidInput, _MALFORMED),
    "22P02": (InvalidInput, _MALFORMED),
    "22P05": (InvalidInput, _MALFORMED),
    "54001": (InvalidInput, "The document is nested too deeply."),
    "42501": (Forbidden, None),
    "P0002": (NotFound, None),
    "23505": (Conflict, None),
    "23P01": (Conflict, None),
    "23502": (Unprocessable, None),
    "23503": (Unprocessable, None),
    "23514": (Unprocessable, None),
    "40001": (Unavailable, "Concurrent requests collided; try again."),
    "40P01": (Unavailable, "Concurrent requests collided; try again."),
    "55P03": (TimedOut, None),
    "57014": (TimedOut, None),
}

_STATUSES: dict[int, type[ControlPlaneError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    409: Conflict,
    413: PayloadTooLarge,
    422: Unprocessable,
    503: Unavailable,
}

_LOCATIONS = {"query": "parameter", "path": "parameter", "header": "header", "cookie": "cookie"}


def problem_response(
    error: ControlPlaneError, instance: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer for `error`; `instance` is the path of the request, or the URN of a logged occurrence."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.message,
        "instance": instance,
        "code": error.code,
        "message": error.message,
        "details": error.details,
        "hint": error.hint,
        "errors": error.errors,
    }
    return Response(
        # Escaped to ASCII: a path may hold what UTF-8 cannot.
        json.dumps(document, separators=(",", ":")).encode(),
        status_code=error.status,
        headers={**(headers or {}), "Cache-Control": "no-store", **_own_headers(error)},
        media_type="application/problem+json",
    )


def database_error(error: BaseException) -> ControlPlaneError:
    """What a failure of a tenant's database means to the caller; what we cannot name is logged under an id, a 500."""
    state = getattr(error, "sqlstate", None) or ""
    if state in _STATES:
        kind, message = _STATES[state]
        return kind(message)
    if isinstance(error, TimeoutError):
        return TimedOut()
    if state[:2] in ("08", "57") or isinstance(error, UNREACHABLE):
        return Unavailable("The connection to the tenant's database was lost.")
    return internal_error(error)


def internal_error(error: BaseException) -> ControlPlaneError:
    """A 500 that tells the client nothing but the id under which the log tells everything."""
    occurrence = uuid4()
    logger.error("internal error %s", occurrence, exc_info=error)
    return ControlPlaneError(details=f"urn:uuid:{occurrence}", hint="Quote the id in `details` when you report this.")


def install_problems(app: Starlette) -> None:
    """Let `app` answer every failure with a problem document."""
    app.add_exception_handler(ControlPlaneError, _answer_own)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, answer_unknown)


def _own_headers(error: ControlPlaneError) -> dict[str, str]:
    if isinstance(error, InvalidToken):
        return {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    if error.status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, RangeNotSatisfiable):
        return {"Content-Range": f"*/{'*' if error.total is None else error.total}"}
    if isinstance(error, MethodNotAllowed) and error.allow:
        return {"Allow": ", ".join(error.allow)}
    if error.retry_after is not None:
        return {"Retry-After": str(error.retry_after)}
    return {}


async def _answer_own(request: Request, error: Exception) -> Response:
    assert isinstance(error, ControlPlaneError)
    return problem_response(error, request.url.path)


async def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    invalid = InvalidInput("The request is not valid.", errors=[_validation_entry(entry) for entry in error.errors()])
    return problem_response(invalid, request.url.path)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = _STATUSES.get(error.status_code)
    if kind is None:
        kind = BadRequest if error.status_code < 500 else ControlPlaneError
    problem = kind()
    problem.status = error.status_code
    return problem_response(problem, request.url.path, error.headers)


async def answer_unknown(request: Request, error: Exception) -> Response:
    """The answer for a failure that nothing further in has named."""
    known = database_error(error) if isinstance(error, asyncpg.PostgresError) else internal_error(error)
    return problem_response(known, request.url.path)


def _validation_entry(entry: Mapping[str, Any]) -> dict[str, str]:
    """Where and why, never what: the input may be a secret."""
    where, *path = entry["loc"]
    if where in _LOCATIONS:
        return {_LOCATIONS[where]: ".".join(map(str, path)), "code": entry["type"], "message": entry["msg"]}
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return {"pointer": f"#{pointer}", "code": entry["type"], "message": entry["msg"]}
