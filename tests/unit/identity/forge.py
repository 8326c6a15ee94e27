"""A forge that signs whatever it is told to, with HS256, RS256 and ES256 keys."""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET = "a development secret of 32 bytes or more"
TENANT = UUID("11111111-1111-4111-8111-111111111111")
USER = UUID("22222222-2222-4222-8222-222222222222")

Sign = Callable[[bytes], bytes]


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(segment: str) -> bytes:
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def number(value: int, length: int | None = None) -> str:
    return encode(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


class Clock:
    """Seconds since the epoch, for a test to move."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


class Forge:
    """Makes tokens byte by byte. The issuers are `hs`, `rs` and `es`, and so are the keys' ids of the last two."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())

    # keys

    def rsa_jwk(self, **extra: Any) -> dict[str, Any]:
        public = self.rsa.public_key().public_numbers()
        return {"kty": "RSA", "kid": "rs", "n": number(public.n), "e": number(public.e), **extra}

    def ec_jwk(self, **extra: Any) -> dict[str, Any]:
        public = self.ec.public_key().public_numbers()
        return {"kty": "EC", "kid": "es", "crv": "P-256", "x": number(public.x, 32), "y": number(public.y, 32), **extra}

    def public_pem(self) -> bytes:
        return self.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def public_der(self) -> bytes:
        return self.rsa.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    # signatures

    def hs(self, message: bytes, secret: bytes = SECRET.encode(), digest: str = "sha256") -> bytes:
        return hmac.new(secret, message, digest).digest()

    def rs(self, message: bytes) -> bytes:
        return self.rsa.sign(message, padding.PKCS1v15(), hashes.SHA256())

    def rs384(self, message: bytes) -> bytes:
        return self.rsa.sign(message, padding.PKCS1v15(), hashes.SHA384())

    def es(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self.ec.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    # tokens

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good tenant token of issuer `hs`; a change to `...` leaves a claim out."""
        now = int(self.clock.now)
        claims = {
            "iss": "hs",
            "sub": str(USER),
            "aud": "tenant-api",
            "tenant_id": str(TENANT),
            "roles": ["editor"],
            "iat": now,
            "exp": now + 3600,
            "jti": "one",
        } | changes
        return {name: value for name, value in claims.items() if value is not ...}

    def platform_claims(self, **changes: Any) -> dict[str, Any]:
        return self.claims(
            **{"aud": "platform-api", "sub": "ops", "tenant_id": ..., "scope": "tenants:read", **changes}
        )

    def token(self, *, header: dict[str, Any] | None = None, sign: Sign | None = None, **changes: Any) -> str:
        """A token of issuer `hs` with other header fields, claims or signature."""
        return self.raw(json.dumps({"alg": "HS256", "typ": "JWT"} | (header or {})), self.claims(**changes), sign)

    def rs_token(self, *, header: dict[str, Any] | None = None, sign: Sign | None = None, **changes: Any) -> str:
        head = {"alg": "RS256", "typ": "JWT", "kid": "rs"} | (header or {})
        return self.raw(json.dumps(head), self.claims(**{"iss": "rs", **changes}), sign or self.rs)

    def es_token(self, *, header: dict[str, Any] | None = None, sign: Sign | None = None, **changes: Any) -> str:
        head = {"alg": "ES256", "typ": "JWT", "kid": "es"} | (header or {})
        return self.raw(json.dumps(head), self.claims(**{"iss": "es", **changes}), sign or self.es)

    def raw(self, header: str, claims: dict[str, Any] | str, sign: Sign | None = None) -> str:
        payload = claims if isinstance(claims, str) else json.dumps(claims)
        message = f"{encode(header.encode())}.{encode(payload.encode())}".encode()
        return f"{message.decode()}.{encode((sign or self.hs)(message))}"
