"""Who is calling: what a verified token says, and nothing that it merely claims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

ALL_SCOPES = "*"


@dataclass(frozen=True, slots=True)
class Principal:
    """The bearer of a verified token.

    A tenant principal has `tenant_id` and `user_id` and no scopes; a platform principal has scopes and neither.
    `expires_at` is in seconds since the epoch, without leeway.
    """

    kind: Literal["tenant", "platform"]
    subject: str
    user_id: UUID | None
    tenant_id: UUID | None
    roles: tuple[str, ...]
    scopes: frozenset[str]
    issuer: str
    token_id: str | None
    expires_at: float

    def has_scope(self, name: str) -> bool:
        return name in self.scopes or ALL_SCOPES in self.scopes
