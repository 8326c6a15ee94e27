"""Credentials in the registry are sealed with a key from the environment."""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken

from control_plane.errors import ConfigurationError


class SecretBox:
    """Seals and opens short texts (authenticated encryption) under a key of any length ≥ 32 characters."""

    def __init__(self, key: str) -> None:
        if len(key) < 32:
            raise ConfigurationError(
                "CP_SECRET_KEY is shorter than 32 characters.",
                hint='Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
            )
        self._fernet = Fernet(base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()))

    def seal(self, text: str) -> bytes:
        return self._fernet.encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise ConfigurationError(
                "A credential in the registry cannot be opened with this CP_SECRET_KEY.",
                hint="Start with the key that the registry was written with.",
            ) from None
