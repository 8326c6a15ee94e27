"""What a token must look like before anything in it is decoded, believed or handed to python-jose.

python-jose 3.5 accepts junk after the signature, non-canonical base64, duplicate JSON keys and critical extensions
that it does not know, and dies of deep nesting. One token must be one string, and one reading.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any, NoReturn

from control_plane.errors import InvalidToken

MAX_TOKEN = 4096  # characters
MAX_KEY_ID = 200  # characters
MAX_BRACKETS = 128  # opening brackets of one JSON text: an upper bound of its depth that costs two counts

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_ACCESS_TOKEN_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_UNSUPPORTED_HEADERS = ("crit", "b64", "zip", "enc")


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A well-formed token that nobody has verified: good for choosing the issuer and the key, for nothing else."""

    algorithm: str
    key_id: str | None
    claims: dict[str, Any]


def read_structure(token: str) -> UnverifiedToken:
    """Take a compact JWS of at most `MAX_TOKEN` characters apart. Raises `InvalidToken` unless it has one reading."""
    segments = token.split(".")
    if len(segments) != 3:
        raise InvalidToken("The token does not have three parts.")
    header_bytes, claims_bytes, _ = [_decode(segment) for segment in segments]
    header = _object(header_bytes, "header")
    for name in _UNSUPPORTED_HEADERS:
        if name in header:
            raise InvalidToken(f"The token's header uses '{name}', which is not supported.")
    _require_access_token_type(header)
    return UnverifiedToken(_algorithm(header), _key_id(header), _object(claims_bytes, "payload"))


def parse_json(data: bytes) -> Any:
    """JSON with one reading: UTF-8, no duplicate keys, no NaN or Infinity, bounded nesting. Raises `ValueError`."""
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise ValueError("nested too deeply")
    return json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)


def _decode(segment: str) -> bytes:
    if not _SEGMENT.fullmatch(segment):
        raise InvalidToken("A part of the token is not base64url.")
    try:
        data = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise InvalidToken("A part of the token is not base64url.") from None
    if urlsafe_b64encode(data).rstrip(b"=").decode() != segment:
        raise InvalidToken("A part of the token is not in canonical base64url.")
    return data


def _object(data: bytes, part: str) -> dict[str, Any]:
    try:
        value = parse_json(data)
    except ValueError:
        raise InvalidToken(f"The token's {part} is not well-formed JSON.") from None
    if not isinstance(value, dict):
        raise InvalidToken(f"The token's {part} is not a JSON object.")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate key")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _algorithm(header: dict[str, Any]) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise InvalidToken("The token's header names no algorithm.")
    return algorithm


def _key_id(header: dict[str, Any]) -> str | None:
    if "kid" not in header:
        return None
    key_id = header["kid"]
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
        raise InvalidToken("The token's key id is not a string of 1 to 200 characters.")
    return key_id


def _require_access_token_type(header: dict[str, Any]) -> None:
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _ACCESS_TOKEN_TYPES:
        raise InvalidToken("The token's type is not that of an access token.")
