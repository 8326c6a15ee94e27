"""The shapes of the platform API's bodies, with the examples that the OpenAPI document shows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

Isolation = Literal["shared", "schema", "database"]
TenantStatus = Literal["provisioning", "active", "suspended", "deleting", "deleted", "failed"]

# PostgreSQL stores no NUL and people read these on one line.
Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$")]
LabelValue = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=50)]
# Versions and capacities end up in `integer` columns.
Positive = Annotated[int, Field(ge=1, le=2_147_483_647)]


def _optional(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _unset() -> Any:
    """A field of a PATCH that may be left out but not be null."""
    return Field(default=None, json_schema_extra=_optional)


class Body(BaseModel):
    """What callers send: a field that we do not know is an error, not a silence."""

    model_config = ConfigDict(extra="forbid")


class TenantCreate(Body):
    """A tenant to onboard."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"slug": "acme", "name": "Acme Inc.", "isolation": "schema", "plan": "team", "labels": {"region": "eu"}}
            ]
        }
    )

    slug: str = Field(max_length=100, description="2 to 40 characters: `a-z`, `0-9`, single hyphens; never changes.")
    name: Line
    isolation: Isolation
    plan: Line | None = None
    labels: Labels = Field(default_factory=dict)
    cluster: Line | None = Field(default=None, description="Its name; chosen by capacity when absent.")
    template: Line | None = None
    version: Positive | None = Field(default=None, description="Pattern version; the fleet's current one when absent.")


class TenantUpdate(Body):
    """What may change on a tenant; absent fields stay as they are, `plan: null` clears it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"plan": "enterprise", "labels": {"region": "us"}}]})

    name: Line = _unset()
    plan: Line | None = None
    labels: Labels = _unset()


class Tenant(BaseModel):
    """One customer of the SaaS company."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "0b6f9a52-6a0f-4d5c-9a55-6a1c2a6f0d11",
                    "slug": "acme",
                    "name": "Acme Inc.",
                    "isolation": "schema",
                    "status": "active",
                    "plan": "team",
                    "template": "reference",
                    "pattern_version": 3,
                    "cluster": "local",
                    "labels": {"region": "eu"},
                    "created_at": "2026-03-01T09:30:00Z",
                    "updated_at": "2026-03-01T09:30:00Z",
                }
            ]
        },
    )

    id: UUID
    slug: str
    name: str
    isolation: Isolation
    status: TenantStatus
    plan: str | None
    template: str | None
    pattern_version: int | None
    cluster: str | None
    labels: dict[str, str]
    created_at: datetime
    updated_at: datetime


class TenantPage(BaseModel):
    """A page of tenants; `next_cursor` is null on the last one."""

    model_config = ConfigDict(from_attributes=True)

    items: list[Tenant]
    next_cursor: str | None


Role = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,62}$")]


class MembershipUpdate(Body):
    """Whom to let in: `token` takes the word of the verified token, `listed` only those on the list."""

    policy: Literal["token", "listed"]


class MemberRoles(Body):
    """The roles of a member in this tenant; they take the place of those in his token."""

    roles: list[Role] = Field(default_factory=list, max_length=50)


class Member(BaseModel):
    """A user whom the tenant lets in while its policy is `listed`."""

    model_config = ConfigDict(from_attributes=True)

    user_id: UUID
    roles: list[str]


class Membership(BaseModel):
    """Who is let in to a tenant."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "policy": "listed",
                    "members": [{"user_id": "6f1c7f0e-0f3b-4a43-9a51-1d2f7f7c1a11", "roles": ["moderator"]}],
                }
            ]
        },
    )

    policy: Literal["token", "listed"]
    members: list[Member]


class OperationError(BaseModel):
    """Why an operation failed."""

    code: str
    message: str
    status: int | None = None
    hint: str | None = None


class Operation(BaseModel):
    """A durable, resumable piece of work on a tenant."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "5f0c2f35-19a5-4f0e-8f4f-0f6f5b6c7d21",
                    "tenant_id": "0b6f9a52-6a0f-4d5c-9a55-6a1c2a6f0d11",
                    "kind": "provision",
                    "status": "running",
                    "percent": 50,
                    "message": "build",
                    "error": None,
                    "created_at": "2026-03-01T09:30:00Z",
                    "updated_at": "2026-03-01T09:30:01Z",
                    "finished_at": None,
                }
            ]
        },
    )

    id: UUID
    tenant_id: UUID
    kind: str
    status: Literal["queued", "running", "succeeded", "failed"]
    percent: int = Field(ge=0, le=100)
    message: str | None
    error: OperationError | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


PoolerAddress = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class ClusterCreate(Body):
    """A PostgreSQL server to register; its posture is checked before it is accepted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "eu-1",
                    "dsn": "postgresql://cp_admin:secret@db.example.com/postgres",
                    "region": "eu",
                    "isolations": ["shared", "schema"],
                    "capacity": 500,
                }
            ]
        }
    )

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    dsn: SecretStr = Field(
        min_length=1,
        max_length=2000,
        description="Of an administrative role with CREATEROLE and CREATEDB, no superuser.",
    )
    region: Line | None = None
    isolations: list[Isolation] = Field(default=["shared", "schema", "database"], min_length=1, max_length=3)
    capacity: Positive | None = Field(default=None, description="Tenants; unlimited when absent.")
    pooler: PoolerAddress | None = Field(default=None, description="Where requests connect to instead.")


class ClusterUpdate(Body):
    """What may change on a cluster; `pooler: null` sends requests to the server itself."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"pooler": "postgresql://pooler.example.com:6432"}]})

    pooler: PoolerAddress | None


class Cluster(BaseModel):
    """One PostgreSQL server that tenants can live on. Its connection string is never shown."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "b7a2a0f4-7d0c-4b6e-8f80-1f8f6d2a9c01",
                    "name": "eu-1",
                    "status": "active",
                    "region": "eu",
                    "isolations": ["shared", "schema"],
                    "capacity": 500,
                    "tenants": 42,
                    "pooler": None,
                    "created_at": "2026-03-01T09:30:00Z",
                }
            ]
        },
    )

    id: UUID
    name: str
    status: Literal["active", "draining"]
    region: str | None
    isolations: list[Isolation]
    capacity: int | None
    tenants: int
    pooler: str | None
    created_at: datetime


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether any cluster can be served, and what each one says."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "ready",
                    "registry": "ok",
                    "revocations": "ok",
                    "clusters": {"local": "ok", "eu-1": "unreachable"},
                }
            ]
        }
    )

    status: Literal["ready", "not_ready", "draining"]
    registry: Literal["ok", "unreachable"]
    revocations: Literal["ok", "late", "unknown"] = Field(
        description="`late`: those of the last 30 seconds may be missing; `unknown`: no token is accepted."
    )
    clusters: dict[str, Literal["ok", "unreachable", "not_ready"]]


class Problem(BaseModel):
    """RFC 9457 problem details, with a stable `code` to program against."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Conflict",
                    "status": 409,
                    "detail": "The slug is taken.",
                    "instance": "/tenants",
                    "code": "slug_taken",
                    "message": "The slug is taken.",
                    "details": None,
                    "hint": None,
                    "errors": [],
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    code: str
    message: str
    details: str | None = None
    hint: str | None = None
    errors: list[dict[str, Any]] = []
