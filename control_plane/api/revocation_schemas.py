"""What revocations look like over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from control_plane.api.schemas import Body

_MOMENT = Field(default=None, description="Tokens issued before it; now when absent, and at most 5 minutes ahead.")
_TENANT = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]
# As long as a claim may be.
_CLAIM = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]


class TokenRevocation(Body):
    """One token, by its id."""

    kind: Literal["token"]
    token_id: _CLAIM = Field(description="Its claim `jti`; never the token.")
    expires_at: AwareDatetime | None = Field(
        default=None, description="Its claim `exp`, so that the revocation need not be kept for longer."
    )


class UserRevocation(Body):
    """Every token that a user of a tenant has so far."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"kind": "user", "tenant": "acme", "user_id": "0b6f9a52-6a0f-4d5c-9a55-6a1c2a6f0d11"}]
        }
    )

    kind: Literal["user"]
    tenant: _TENANT = Field(description="Slug or id.")
    user_id: UUID
    issued_before: AwareDatetime | None = _MOMENT


class TenantRevocation(Body):
    """Every token that the users of a tenant have so far."""

    kind: Literal["tenant"]
    tenant: _TENANT = Field(description="Slug or id.")
    issued_before: AwareDatetime | None = _MOMENT


class SubjectRevocation(Body):
    """Every platform token that a subject has so far."""

    kind: Literal["subject"]
    subject: _CLAIM
    issued_before: AwareDatetime | None = _MOMENT


RevocationCreate = TokenRevocation | UserRevocation | TenantRevocation | SubjectRevocation


class Revocation(BaseModel):
    """Tokens that were taken back; `subject` is the user's id where there is a tenant."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": 7,
                    "kind": "user",
                    "tenant_id": "0b6f9a52-6a0f-4d5c-9a55-6a1c2a6f0d11",
                    "subject": "0b6f9a52-6a0f-4d5c-9a55-6a1c2a6f0d12",
                    "token_id": None,
                    "issued_before": "2026-03-01T09:30:00Z",
                    "expires_at": "2027-04-05T09:30:00Z",
                    "created_at": "2026-03-01T09:30:00Z",
                }
            ]
        },
    )

    id: int
    kind: Literal["token", "user", "tenant", "subject"]
    tenant_id: UUID | None
    subject: str | None
    token_id: str | None
    issued_before: datetime | None
    expires_at: datetime
    created_at: datetime


class RevocationPage(BaseModel):
    """A page, the newest first; `next_cursor` is null on the last one."""

    model_config = ConfigDict(from_attributes=True)

    items: list[Revocation]
    next_cursor: str | None
