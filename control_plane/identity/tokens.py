"""Issuing tokens, for development, scripts and tests: HS256, under an issuer that has a secret."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid4

from jose import jwt

from control_plane.errors import ConfigurationError
from control_plane.identity.keys import secret_key
from control_plane.identity.principal import ALL_SCOPES
from control_plane.settings import Issuer

DEFAULT_TTL = 3600  # seconds


def mint_tenant_token(
    issuer: Issuer,
    tenant_id: UUID,
    subject: UUID | str | None = None,
    roles: Iterable[str] = (),
    ttl: float = DEFAULT_TTL,
) -> str:
    """A token for one user of a tenant; `subject` is the user's id (a uuid; a new one when absent), `ttl` in seconds.

    Raises `ConfigurationError` for an issuer without a secret.
    """
    claims = {"sub": str(subject or uuid4()), issuer.tenant_claim: str(tenant_id), issuer.roles_claim: list(roles)}
    return _mint(issuer, issuer.tenant_audience, claims, ttl)


def mint_platform_token(
    issuer: Issuer,
    subject: str = "platform",
    scopes: Iterable[str] = (ALL_SCOPES,),
    ttl: float = DEFAULT_TTL,
) -> str:
    """A token for the platform API; `ttl` in seconds. Raises `ConfigurationError` for an issuer without a secret."""
    return _mint(issuer, issuer.platform_audience, {"sub": subject, "scope": " ".join(scopes)}, ttl)


def _mint(issuer: Issuer, audience: str, claims: dict[str, Any], ttl: float) -> str:
    if issuer.secret is None:
        raise ConfigurationError(f"The issuer '{issuer.issuer}' has no secret: it issues its tokens itself.")
    key = secret_key(issuer)
    now = int(time.time())
    claims |= {"iss": issuer.issuer, "aud": audience, "iat": now, "exp": now + int(ttl), "jti": secrets.token_hex(16)}
    headers = {"kid": key.key_id} if key.key_id is not None else None
    return jwt.encode(claims, key.key, algorithm=key.algorithm, headers=headers)
