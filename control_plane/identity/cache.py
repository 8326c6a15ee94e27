"""Verified tokens, remembered: the path of nearly every request."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from hashlib import blake2b
from typing import NamedTuple

from control_plane.identity.keys import KeyRing
from control_plane.identity.principal import Principal


class _Entry(NamedTuple):
    principal: Principal
    valid_from: float
    valid_until: float
    ring: KeyRing
    ring_version: int


class TokenCache:
    """Token → `Principal`, for successes only; at most `size` of them, the least recently used leave first.

    The key is a keyed hash, so that the process does not hoard bearer tokens. Times and the issuer's keys are looked
    at on every hit. For one event loop; not for threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._hash = blake2b(digest_size=16, key=secrets.token_bytes(32))

    def get(self, token: str, now: float) -> Principal | None:
        """The principal of a token that was verified and would be again; None says: verify it."""
        key = self._key(token)
        entry = self._entries.get(key)
        if entry is None:
            return None
        principal, valid_from, valid_until, ring, ring_version = entry
        if valid_from <= now < valid_until and ring_version == ring.version:
            self._entries.move_to_end(key)
            return principal
        del self._entries[key]
        return None

    def put(self, token: str, principal: Principal, valid_from: float, valid_until: float, ring: KeyRing) -> None:
        """Remember a token that `ring` verified, valid from `valid_from` until before `valid_until` (seconds)."""
        if self._size == 0:
            return
        self._entries[self._key(token)] = _Entry(principal, valid_from, valid_until, ring, ring.version)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)

    def _key(self, token: str) -> bytes:
        digest = self._hash.copy()
        digest.update(token.encode("utf-8", "surrogatepass"))
        return digest.digest()
