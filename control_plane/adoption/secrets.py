"""Columns whose names say that nobody should read them. They stay out of documents until they are confirmed."""

from __future__ import annotations

import re

# Whole words of a name, after snake_case and camelCase are taken apart.
_WORDS = frozenset({
    "auth", "credential", "credentials", "cvc", "cvv", "encrypted", "hash", "hashed", "iban", "mfa", "nonce", "otp",
    "pass", "passcode", "passphrase", "pin", "pwd", "salt", "seed", "signature", "ssn", "tin", "totp",
})  # fmt: skip
# Wherever they stand, also in a name without separators.
_PARTS = (
    "accesskey", "apikey", "cardnumber", "creditcard", "passwd", "password", "privatekey", "secret", "sessionid",
    "signingkey", "socialsecurity", "taxid", "token",
)  # fmt: skip
_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+")


def is_secret(column: str) -> bool:
    """Whether a name suggests a secret: `password_hash`, `apiKey`, `SSN`; not `hashtag` or `passenger`."""
    pieces = [piece.lower() for piece in _PIECES.findall(column)]
    joined = "".join(pieces)
    return bool(_WORDS.intersection(pieces)) or any(part in joined for part in _PARTS)
