"""What the claims of a token must be, type by type, and what a `Principal` takes from them.

The types are checked before python-jose sees the claims (it raises TypeError and OverflowError on some, and converts
strings and booleans to times); the clock is checked after the signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from control_plane.errors import InvalidToken
from control_plane.identity.principal import Principal
from control_plane.settings import Issuer

REQUIRED = ("iss", "sub", "aud", "exp", "iat")
MAX_TIME = 253_402_300_800  # 10000-01-01T00:00:00Z
MAX_AGE = 400 * 86_400  # seconds since `iat`; so long a revocation is kept, so a later release may not raise it
MAX_AUDIENCES = 16
MAX_ROLES = 32
MAX_ROLE = 64  # characters
MAX_TEXT = 255  # characters of `sub` and `jti`
MAX_SCOPE = 1024  # characters

# Where issuers say that a token is an access token (Keycloak, Cognito, others); absent is fine, another value is not.
_KIND_CLAIMS = {
    "typ": frozenset({"bearer", "jwt", "at+jwt"}),
    "token_use": frozenset({"access"}),
    "token_type": frozenset({"access", "access_token", "bearer"}),
}
_ID_TOKEN_CLAIMS = ("at_hash", "c_hash")


@dataclass(frozen=True, slots=True)
class Claims:
    """Well-typed claims of one token. Times are seconds since the epoch; `audience` is the one that is ours."""

    audience: str
    principal: Principal
    issued_at: float
    not_before: float

    @property
    def valid_from(self) -> float:
        return max(self.not_before, self.issued_at)

    @property
    def valid_until(self) -> float:
        """When the token expires, or is `MAX_AGE` old."""
        return min(self.principal.expires_at, self.issued_at + MAX_AGE)

    def check_time(self, now: float, leeway: float) -> None:
        """Raises `InvalidToken` unless `valid_from` ≤ now < `valid_until`, give or take `leeway`."""
        if now >= self.principal.expires_at + leeway:
            raise InvalidToken("The token has expired.")
        if now >= self.valid_until + leeway:
            raise InvalidToken(f"The token was issued more than {MAX_AGE // 86_400} days ago.")
        if now < self.not_before - leeway:
            raise InvalidToken("The token is not valid yet.")
        if now < self.issued_at - leeway:
            raise InvalidToken("The token was issued in the future.")


def read_claims(claims: dict[str, Any], issuer: Issuer) -> Claims:
    """Read the claims of a token of `issuer`. Raises `InvalidToken` for anything missing or ill-typed."""
    for name in REQUIRED:
        if name not in claims:
            raise InvalidToken(f"The token lacks the claim '{name}'.")
    _require_access_token(claims)
    audience, kind = _audience(claims["aud"], issuer)
    read = _tenant_principal if kind == "tenant" else _platform_principal
    return Claims(
        audience=audience,
        principal=read(claims, issuer),
        issued_at=_time(claims, "iat"),
        not_before=_time(claims, "nbf") if "nbf" in claims else 0,
    )


def _tenant_principal(claims: dict[str, Any], issuer: Issuer) -> Principal:
    user_id = _uuid(claims, "sub")
    return Principal(
        kind="tenant",
        subject=str(user_id),
        user_id=user_id,
        tenant_id=_uuid(claims, issuer.tenant_claim),
        roles=_roles(claims, issuer.roles_claim),
        scopes=frozenset(),
        issuer=issuer.issuer,
        token_id=_token_id(claims),
        expires_at=_time(claims, "exp"),
    )


def _platform_principal(claims: dict[str, Any], issuer: Issuer) -> Principal:
    return Principal(
        kind="platform",
        subject=_text(claims["sub"], "sub", MAX_TEXT),
        user_id=None,
        tenant_id=None,
        roles=_roles(claims, issuer.roles_claim),
        scopes=_scopes(claims),
        issuer=issuer.issuer,
        token_id=_token_id(claims),
        expires_at=_time(claims, "exp"),
    )


def _require_access_token(claims: dict[str, Any]) -> None:
    for name, allowed in _KIND_CLAIMS.items():
        if name in claims and str(claims[name]).lower() not in allowed:
            raise InvalidToken(f"The token is not an access token, its claim '{name}' says.")
    for name in _ID_TOKEN_CLAIMS:
        if name in claims:
            raise InvalidToken("The token is an ID token, not an access token.")


def _audience(value: Any, issuer: Issuer) -> tuple[str, Literal["tenant", "platform"]]:
    """Ours among the token's audiences. Others may stand beside it, but a token for both of ours is for neither."""
    audiences = [value] if isinstance(value, str) else value
    if not isinstance(audiences, list) or len(audiences) > MAX_AUDIENCES:
        raise InvalidToken("The claim 'aud' is not a string or a short array of strings.")
    if not all(isinstance(audience, str) for audience in audiences):
        raise InvalidToken("The claim 'aud' is not a string or a short array of strings.")
    for_tenant = issuer.tenant_audience in audiences
    for_platform = issuer.platform_audience in audiences
    if for_tenant == for_platform:
        raise InvalidToken("The token is not for exactly one audience of this service.")
    return (issuer.tenant_audience, "tenant") if for_tenant else (issuer.platform_audience, "platform")


def _time(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    # The comparison is false for NaN and infinities, and exact for integers of any size.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_TIME:
        raise InvalidToken(f"The claim '{name}' is not a time in seconds.")
    return value


def _text(value: Any, name: str, longest: int) -> str:
    # Unprintable characters (NUL, lone surrogates, line breaks) have no business in logs and fail in PostgreSQL.
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise InvalidToken(f"The claim '{name}' is not a printable text of 1 to {longest} characters.")
    return value


def _uuid(claims: dict[str, Any], name: str) -> UUID:
    value = claims.get(name)
    try:
        parsed = UUID(value) if isinstance(value, str) else None
    except ValueError:
        parsed = None
    # UUID() also reads braces, urn: and bare hexadecimals: one tenant would have many spellings.
    if parsed is None or str(parsed) != value:
        raise InvalidToken(f"The claim '{name}' is not a UUID.")
    return parsed


def _roles(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    roles = claims.get(name, [])
    if not isinstance(roles, list) or len(roles) > MAX_ROLES:
        raise InvalidToken(f"The claim '{name}' is not an array of at most {MAX_ROLES} roles.")
    return tuple(_text(role, name, MAX_ROLE) for role in roles)


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    scope = claims.get("scope", "")
    if scope == "":
        return frozenset()
    return frozenset(_text(scope, "scope", MAX_SCOPE).split())


def _token_id(claims: dict[str, Any]) -> str | None:
    return _text(claims["jti"], "jti", MAX_TEXT) if "jti" in claims else None
