"""What a run tells about itself while it goes on and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from control_plane.migrator.plan import Plan


@dataclass(frozen=True, slots=True)
class Touched:
    """What an upgrade created or changed in a home: names by kind (tables, views, indexes, functions), and rows."""

    objects: dict[str, list[str]]
    rows: int

    def plus(self, other: Touched) -> Touched:
        """With what a further step touched."""
        kinds = dict.fromkeys((*self.objects, *other.objects))
        names = {kind: sorted({*self.objects.get(kind, ()), *other.objects.get(kind, ())}) for kind in kinds}
        return Touched(names, self.rows + other.rows)


@dataclass(frozen=True, slots=True)
class HomeResult:
    """The outcome of one home. `skipped` is a home that disappeared or was taken care of by somebody else.

    `reached` is the version where the home is now. One that failed there owes it steps, or could not take the next one.
    """

    cluster: str
    slug: str | None  # of the tenant; None for a shared home
    label: str  # the slug, or a description of the shared home
    home_id: UUID
    isolation: str
    from_version: int
    to_version: int
    reached: int
    status: Literal["done", "failed", "skipped"]
    milliseconds: int
    attempts: int
    sqlstate: str | None = None
    error: str | None = None
    touched: Touched | None = None  # None unless this run did it, and heard so


@dataclass(frozen=True, slots=True)
class Planned:
    """Work was found: at the start, and again in a sweep that found homes made meanwhile."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class Started:
    """The run is recorded under this id, by which operators name it."""

    run_id: UUID


@dataclass(frozen=True, slots=True)
class WaveBegun:
    """A wave of so many homes begins."""

    name: str
    homes: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The wave of this name is through, and the run waits until an operator lets it go on."""

    run_id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class StepProgress:
    """A home is at a step beside the transaction of `version`: at a statement (from 1), with `rows` changed so far."""

    cluster: str
    slug: str | None
    label: str
    home_id: UUID
    version: int
    step: str
    statement: int
    statements: int
    rows: int


@dataclass(frozen=True, slots=True)
class Paced:
    """So many homes of a cluster are migrated at a time from now on; `sign` is why they are fewer, None for more."""

    cluster: str
    limit: int
    sign: str | None


Event = Planned | Started | WaveBegun | Waiting | HomeResult | StepProgress | Paced


@dataclass(frozen=True, slots=True)
class RunResult:
    """`run_id` is None when there was nothing to do; `left` counts homes that a halted run did not reach."""

    run_id: UUID | None
    template: str
    target: int
    status: Literal["done", "failed", "halted", "aborted"]
    done: int
    failed: int
    skipped: int
    left: int
    current: int  # homes that were at the target before
    seconds: float
    reason: str | None  # why it was halted or aborted, unless its starter stopped it
    plan: Plan = field(repr=False)  # the first one; what it could not reach or left alone is part of the outcome
