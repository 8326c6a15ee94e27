"""From the Authorization header to the `Principal`, once per request, for every transport.

The middleware refuses nothing itself: an endpoint that needs a caller demands one with `require_tenant` or
`require_platform`, so public routes stay public and a refusal looks like every other problem.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from control_plane.errors import InsufficientScope, InvalidToken, RegistryUnavailable, Unauthenticated, WrongTokenKind
from control_plane.identity.principal import Principal
from control_plane.identity.verifier import TokenVerifier, UnknownKey

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class IdentityMiddleware:
    """Plain ASGI. Sets `principal` (or None) and `identity_error` (or None) in `scope["state"]`."""

    def __init__(self, app: Application, verifier: TokenVerifier) -> None:
        self._app = app
        self._verifier = verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            principal, error = None, None
            try:
                principal = await identify(scope["headers"], self._verifier)
            except (Unauthenticated, RegistryUnavailable) as refusal:
                error = refusal.with_traceback(None)
            # A new dictionary: some servers share one between requests, and a principal must not outlive its own.
            scope["state"] = {**scope.get("state", {}), "principal": principal, "identity_error": error}
        await self._app(scope, receive, send)


async def identify(headers: Iterable[tuple[bytes, bytes]], verifier: TokenVerifier) -> Principal:
    """Who sends these ASGI headers. Raises `Unauthenticated` for nobody, `InvalidToken` for a bad token, and
    `RegistryUnavailable` when nobody knows whether it was revoked.

    The Authorization header is the only place that is looked at: never a query string, a cookie or another header.
    """
    token = bearer_token(headers)
    try:
        return verifier.verify(token)
    except UnknownKey:
        return await verifier.verify_slow(token)


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The token of the one Authorization header, in any shape: its structure is the verifier's business."""
    values = [value for name, value in headers if name.lower() == b"authorization"]
    if not values:
        raise Unauthenticated
    if len(values) > 1:
        raise InvalidToken("There is more than one Authorization header.")
    scheme, _, token = values[0].partition(b" ")
    if scheme.lower() != b"bearer":
        raise Unauthenticated
    return token.decode("latin-1")


def require_principal(scope: Scope) -> Principal:
    """The caller of this request. Raises `Unauthenticated`, `InvalidToken` or `RegistryUnavailable`."""
    state = scope.get("state", {})
    principal = state.get("principal")
    if isinstance(principal, Principal):
        return principal
    raise state.get("identity_error") or Unauthenticated()


def require_tenant(scope: Scope) -> Principal:
    """The caller, who must hold a tenant token. Raises also `WrongTokenKind`."""
    principal = require_principal(scope)
    if principal.kind != "tenant":
        raise WrongTokenKind
    return principal


def require_platform(scope: Scope, scope_name: str) -> Principal:
    """The caller, who must hold a platform token with `scope_name`.

    Raises also `WrongTokenKind` and `InsufficientScope`.
    """
    principal = require_principal(scope)
    if principal.kind != "platform":
        raise WrongTokenKind
    if not principal.has_scope(scope_name):
        raise InsufficientScope(details=f"The call needs the scope '{scope_name}'.")
    return principal
