"""Verification keys: built once, each for exactly one algorithm, and found by key id inside one issuer only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jose import jwk
from jose.backends.base import Key
from jose.exceptions import JOSEError

from control_plane.errors import ConfigurationError
from control_plane.identity.structure import MAX_KEY_ID
from control_plane.settings import Issuer

MIN_SECRET = 32  # bytes: RFC 7518 §3.2 for HS256
RSA_BITS = range(2048, 8192 + 1)

Algorithm = Literal["HS256", "RS256", "ES256"]


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key of an issuer. Two are equal when they verify the same tokens."""

    key_id: str | None
    algorithm: Algorithm
    material: bytes  # of the secret or the public key
    key: Key = field(compare=False, repr=False)

    def __repr__(self) -> str:
        return f"VerificationKey(key_id={self.key_id!r}, algorithm={self.algorithm!r})"


class KeyRing:
    """The current keys of one issuer. `version` changes whenever they do, which ends what was cached under them."""

    def __init__(self, keys: Iterable[VerificationKey] = ()) -> None:
        self.version = 0
        self._keys = {key.key_id: key for key in keys}

    def find(self, key_id: str | None) -> VerificationKey | None:
        """The key of that id; for a token without one, the only key, if there is only one."""
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def replace(self, keys: Mapping[str | None, VerificationKey]) -> bool:
        """Put `keys` in the place of the present ones; returns whether that changed anything."""
        if keys == self._keys:
            return False
        self._keys = dict(keys)
        self.version += 1
        return True

    def __len__(self) -> int:
        return len(self._keys)


def secret_key(issuer: Issuer) -> VerificationKey:
    """The HS256 key of an issuer with a secret. Raises `ConfigurationError` for a weak or unfit one."""
    secret = issuer.secret.get_secret_value().encode() if issuer.secret else b""
    if len(secret) < MIN_SECRET:
        raise ConfigurationError(
            f"The secret of issuer '{issuer.issuer}' is shorter than {MIN_SECRET} bytes.",
            hint='Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
        )
    try:
        key = jwk.construct(secret, "HS256")
    except JOSEError:
        raise ConfigurationError(
            f"The secret of issuer '{issuer.issuer}' is a public or private key, which must not sign HS256 tokens.",
            hint="Publish the public key at a jwks_url and use RS256 or ES256.",
        ) from None
    return VerificationKey(issuer.key_id, "HS256", secret, key)


def public_keys(document: Any, algorithms: Iterable[str]) -> dict[str | None, VerificationKey]:
    """The usable keys of a JWKS document by key id; of two with one id the first. Raises `ValueError` if none is."""
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a JSON Web Key Set")
    keys: dict[str | None, VerificationKey] = {}
    for entry in entries:
        key = _public_key(entry, frozenset(algorithms))
        if key is not None:
            keys.setdefault(key.key_id, key)
    if not keys:
        raise ValueError("no usable key")
    return keys


def _public_key(entry: Any, algorithms: frozenset[str]) -> VerificationKey | None:
    """The key of a JWK, or None for one that is not a public signature key of an algorithm of the issuer."""
    if not isinstance(entry, dict) or "d" in entry:
        return None
    algorithm = _algorithm(entry)
    if algorithm is None or algorithm not in algorithms or not _is_for_verifying(entry):
        return None
    key_id = entry.get("kid")
    if key_id is not None and (not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID):
        return None
    try:
        key: Any = jwk.construct(entry, algorithm)
        public = key.prepared_key
        if isinstance(public, RSAPublicKey) and public.key_size not in RSA_BITS:
            return None
        return VerificationKey(key_id, algorithm, key.to_pem(), key)
    except Exception:  # python-jose raises what its helpers raise: struct, binascii, Type, Key and ValueError
        return None


def _algorithm(entry: dict[str, Any]) -> Algorithm | None:
    """The one algorithm of a JWK: from the key's type, which a stated `alg` must agree with."""
    algorithm: Algorithm
    if entry.get("kty") == "RSA":
        algorithm = "RS256"
    elif entry.get("kty") == "EC" and entry.get("crv") == "P-256":
        algorithm = "ES256"
    else:
        return None
    return algorithm if entry.get("alg", algorithm) == algorithm else None


def _is_for_verifying(entry: dict[str, Any]) -> bool:
    operations = entry.get("key_ops", ["verify"])
    return entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
