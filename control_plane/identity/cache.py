"""Verified tokens, remembered: the path of nearly every request."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from hashlib import blake2b
from uuid import UUID

from control_plane.errors import InvalidToken
from control_plane.identity.keys import KeyRing
from control_plane.identity.principal import Principal
from control_plane.identity.revocations import Revocations

SHARE = 4  # a full cache holds no more than 1/SHARE of tokens of one tenant, while others need the room


class _Entry:
    __slots__ = ("checked", "issued_at", "principal", "ring", "ring_version", "valid_from", "valid_until")

    def __init__(
        self,
        principal: Principal,
        issued_at: float,
        valid_from: float,
        valid_until: float,
        ring: KeyRing,
        checked: int,
    ) -> None:
        self.principal = principal
        self.issued_at = issued_at
        self.valid_from = valid_from
        self.valid_until = valid_until
        self.ring = ring
        self.ring_version = ring.version
        self.checked = checked  # the version of the revocations under which the token was good


class TokenCache:
    """Token → `Principal`, for successes only; at most `size` of them, the least recently used leave first.

    The key is a keyed hash, so that the process does not hoard bearer tokens. Times, the issuer's keys and the
    revocations are looked at on every hit. One tenant with ever new tokens (platform tokens count as one tenant) drives
    out its own, once it has its share. For one event loop; not for threads.
    """

    def __init__(self, size: int, revocations: Revocations) -> None:
        self._size = size
        self._share = max(1, size // SHARE)
        self._revocations = revocations
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._keys_of: dict[UUID | None, dict[bytes, None]] = {}  # by tenant, the oldest first
        self._hash = blake2b(digest_size=16, key=secrets.token_bytes(32))

    def get(self, token: str, now: float) -> Principal | None:
        """The principal of a token that was verified and would be again; None says: verify it."""
        key = self._key(token)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if (
            entry.valid_from <= now < entry.valid_until
            and entry.ring_version == entry.ring.version
            and (entry.checked == self._revocations.version or self._check(entry))
        ):
            self._entries.move_to_end(key)
            return entry.principal
        self._remove(key)
        return None

    def put(
        self, token: str, principal: Principal, issued_at: float, valid_from: float, valid_until: float, ring: KeyRing
    ) -> None:
        """Remember a token that `ring` verified and that is not revoked, valid from `valid_from` until before
        `valid_until` (seconds).
        """
        if self._size == 0:
            return
        key = self._key(token)
        if key in self._entries:
            self._remove(key)
        self._entries[key] = _Entry(principal, issued_at, valid_from, valid_until, ring, self._revocations.version)
        own = self._keys_of.setdefault(principal.tenant_id, {})
        own[key] = None
        if len(self._entries) > self._size:
            oldest, entry = next(iter(self._entries.items()))
            greedy = len(own) > self._share and entry.principal.tenant_id != principal.tenant_id
            self._remove(next(iter(own)) if greedy else oldest)

    def __len__(self) -> int:
        return len(self._entries)

    def _check(self, entry: _Entry) -> bool:
        """Whether the token is still good under the revocations that there are now."""
        try:
            self._revocations.check(entry.principal, entry.issued_at)
        except InvalidToken:
            return False
        entry.checked = self._revocations.version
        return True

    def _remove(self, key: bytes) -> None:
        tenant_id = self._entries.pop(key).principal.tenant_id
        own = self._keys_of[tenant_id]
        del own[key]
        if not own:
            del self._keys_of[tenant_id]

    def _key(self, token: str) -> bytes:
        digest = self._hash.copy()
        digest.update(token.encode("utf-8", "surrogatepass"))
        return digest.digest()
