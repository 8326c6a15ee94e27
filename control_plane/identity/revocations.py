"""Tokens that were taken back before their time: what one process knows of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from control_plane.errors import InvalidToken, RegistryUnavailable
from control_plane.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class Revocation:
    """Takes back the token `token_id`; or else, of all tokens issued before `issued_before` (seconds since the epoch),
    those of a tenant, of one of its users (`subject`), or, without a tenant, the platform tokens of a subject.
    """

    tenant_id: UUID | None = None
    subject: str | None = None
    token_id: str | None = None
    issued_before: float = 0.0


class Revocations:
    """What was taken back, for `TokenVerifier` to ask. `version` changes whenever an answer may have changed.

    Whoever reads the registry tells it with `add`, `replace` and `trust`; until then nothing counts as taken back.
    """

    def __init__(self) -> None:
        self.version = 0
        self._trusted = True
        self._tokens: set[str] = set()
        self._issued_before: dict[tuple[UUID | None, str | None], float] = {}

    def check(self, principal: Principal, issued_at: float) -> None:
        """Raises `InvalidToken` for a token that was taken back, `RegistryUnavailable` when that is not known."""
        if not self._trusted:
            raise RegistryUnavailable("Which tokens were revoked is not known at the moment.")
        if principal.token_id in self._tokens or any(
            issued_at < self._issued_before.get(whose, 0.0) for whose in _owners(principal)
        ):
            raise InvalidToken("The token has been revoked.")

    def add(self, made: Iterable[Revocation]) -> None:
        """What was taken back since."""
        for revocation in made:
            self._note(revocation)
            self.version += 1

    def replace(self, made: Iterable[Revocation]) -> None:
        """All there is, in the place of what was known."""
        before = self._tokens, self._issued_before
        self._tokens, self._issued_before = set(), {}
        for revocation in made:
            self._note(revocation)
        if (self._tokens, self._issued_before) != before:
            self.version += 1

    def trust(self, trusted: bool) -> None:
        """Whether what is known is recent enough to let anybody in."""
        if trusted != self._trusted:
            self._trusted = trusted
            self.version += 1

    def __len__(self) -> int:
        return len(self._tokens) + len(self._issued_before)

    def _note(self, revocation: Revocation) -> None:
        if revocation.token_id is not None:
            self._tokens.add(revocation.token_id)
            return
        whose = revocation.tenant_id, revocation.subject
        self._issued_before[whose] = max(revocation.issued_before, self._issued_before.get(whose, 0.0))


def _owners(principal: Principal) -> tuple[tuple[UUID | None, str | None], ...]:
    """The tenant and its user, or the subject of a platform token."""
    user = principal.tenant_id, principal.subject
    return (user,) if principal.tenant_id is None else ((principal.tenant_id, None), user)
