"""The shapes of bodies about migrations and pins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from control_plane.api.schemas import Body, Isolation, Labels, Line, Positive
from control_plane.migrator.policy import WavePolicy

RunStatus = Literal["queued", "running", "paused", "done", "failed", "halted", "aborted"]
# Slugs of tenants that may be none; they are joined by commas on the way.
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,100}$")]
Reason = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"),
]


class MigrationCreate(Body):
    """What to bring the fleet to; the options are those of `cp migrate-all`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"target": 3, "halt_failures": 20, "dry_run": True}]})

    template: Line | None = Field(default=None, description="`CP_TEMPLATE` when absent.")
    target: Positive | None = Field(default=None, description="Pattern version; the latest when absent.")
    only: list[Slug] = Field(default=[], max_length=1000, description="Slugs: only these tenants, as a trial.")
    approve: bool = Field(default=False, description="Wait after each wave until the run is resumed.")
    halt_failures: Positive | None = Field(default=None, description="Stop after so many failed homes.")
    halt_rate: float | None = Field(
        default=None, gt=0, lt=1, description="Stop when more than this share of the latest 200 homes failed."
    )
    max_duration: Positive | None = Field(
        default=None, description="Seconds after which no further home is taken, counted from this request."
    )
    concurrency: Positive | None = Field(
        default=None, description="Homes at a time per cluster, at most; `CP_MIGRATE_CONCURRENCY` when absent."
    )
    override_sunset: Reason | None = Field(
        default=None, description="Let a version remove before its sunset, for this reason, which is recorded."
    )
    internal: Labels | None = Field(
        default=None, description="Labels of the tenants that go first; `ring=internal` when absent."
    )
    waves: WavePolicy = Field(default=WavePolicy(), description="As in migrate.toml.")
    dry_run: bool = Field(default=False, description="Answer what would be done, and do nothing.")


class Migration(BaseModel):
    """One run of `migrate-all`.

    `runner` says whether somebody works on it, `wish` what he has been asked, `reason` why it stopped. A `durable` run
    is taken over by the next worker when its own dies.
    """

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "7b9d9a8e-3f0a-4a51-9f3c-0b6c1a2d3e4f",
                    "template": "reference",
                    "target": 3,
                    "status": "running",
                    "wave": "canary",
                    "wish": None,
                    "reason": None,
                    "planned": 120,
                    "done": 4,
                    "failed": 0,
                    "actor": "deploy",
                    "durable": True,
                    "runner": True,
                    "started_at": "2026-03-01T09:30:00Z",
                    "heartbeat_at": "2026-03-01T09:30:04Z",
                    "finished_at": None,
                }
            ]
        },
    )

    id: UUID
    template: str
    target: int
    status: RunStatus
    wave: str | None
    wish: Literal["pause", "abort"] | None
    reason: str | None
    planned: int
    done: int
    failed: int
    actor: str
    durable: bool
    runner: bool
    started_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None


class MigrationFailure(BaseModel):
    """Homes that failed in the same way; `tenants` names a few of them, null for a shared home."""

    model_config = ConfigDict(from_attributes=True)

    sqlstate: str | None
    error: str
    homes: int
    tenants: list[str | None]


class MigrationDetails(Migration):
    """A run with its failures by what went wrong, the most frequent first."""

    failures: list[MigrationFailure]


class MigrationPage(BaseModel):
    """A page, the newest first; `next_cursor` is null on the last one."""

    model_config = ConfigDict(from_attributes=True)

    items: list[Migration]
    next_cursor: str | None


class PlanGroup(BaseModel):
    """Homes that run the same script in the same way."""

    cluster: str
    isolation: Isolation
    from_: int = Field(alias="from")
    to: int
    homes: int
    tenants: int


class PlanPinned(BaseModel):
    """A home that goes no further than `pin`; it is at `version`."""

    cluster: str
    tenant: str
    isolation: Isolation
    version: int
    pin: int
    reason: str
    expires_at: datetime


class PlanUnreached(BaseModel):
    """A database that did not answer; its homes are not part of the plan."""

    cluster: str
    database: str
    error: str


class PlanWave(BaseModel):
    """Homes that run before those of the next wave begin."""

    name: str
    homes: int


class PlanLock(BaseModel):
    """The strongest lock on a relation that stood before the version, and the file that took it; null for the stamp."""

    relation: str
    mode: str
    file: str | None
    rewritten: bool
    scans: int


class PlanLocks(BaseModel):
    """What a version that is new to the fleet keeps waiting."""

    version: int
    name: str
    locks: list[PlanLock]


class MigrationPlan(BaseModel):
    """What a run would do: `homes` are behind, `current` at the target, `ahead` past it, `building` not built yet."""

    template: str
    target: int
    homes: int
    current: int
    ahead: int
    building: int
    deleting: list[str]
    pinned: list[PlanPinned]
    groups: list[PlanGroup]
    unreached: list[PlanUnreached]
    waves: list[PlanWave]
    locks: list[PlanLocks]


class PinPut(Body):
    """How far a tenant may be taken, why, and until when."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"version": 3, "reason": "in the middle of its audit", "expires_at": "2026-03-31T00:00:00Z"}]
        }
    )

    version: Positive | None = Field(default=None, description="The version that it is at when absent.")
    reason: Reason
    expires_at: AwareDatetime = Field(description="Within 180 days.")


class Pin(BaseModel):
    """A pin that has not expired; `at` is the version of the tenant's home, `version` how far it may be taken."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "tenant": "acme",
                    "template": "reference",
                    "cluster": "local",
                    "isolation": "schema",
                    "at": 3,
                    "version": 3,
                    "reason": "in the middle of its audit",
                    "actor": "ann",
                    "created_at": "2026-03-01T09:30:00Z",
                    "expires_at": "2026-03-31T00:00:00Z",
                }
            ]
        },
    )

    tenant: str
    template: str
    cluster: str
    isolation: Isolation
    at: int
    version: int
    reason: str
    actor: str
    created_at: datetime
    expires_at: datetime
