"""What a run has to do: found with one query per database, and costing nothing more when nothing is behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from control_plane.errors import BadRequest, ClusterUnavailable, TenantNotFound, TenantPinned, VersionConflict
from control_plane.migrator.debts import fetch, in_order
from control_plane.pools.databases import Databases
from control_plane.registry import pins
from control_plane.registry.fleet import Fleet, Place, read_fleet
from control_plane.registry.pins import ActivePin
from control_plane.settings import shipped
from control_plane.templates import Template

_HOMES = (shipped("sql") / "migrator" / "homes.sql").read_text()
PLAN_CONNECTIONS = 8  # that ask at the same time, over all clusters


@dataclass(frozen=True, slots=True)
class DueHome:
    """A home that is behind the target, or owes steps of its version."""

    place: Place
    home_id: UUID
    isolation: str
    schema_name: str
    version: int
    target: int  # the run's, or that of its tenant's pin
    slug: str | None  # of the tenant; None for a shared home
    tenants: int
    pages: int = 0  # of 8 KiB, in its tables: as of the last VACUUM or ANALYZE
    owed: tuple[str, ...] = ()  # the steps, in their order

    @property
    def label(self) -> str:
        return self.slug or f"{self.isolation} home of {self.tenants} tenants"


@dataclass(frozen=True, slots=True)
class PinnedHome:
    """A home that is not taken past `pin`, the version that its tenant is pinned to; it is at `version`."""

    cluster: str
    tenant: str
    isolation: str
    version: int
    pin: int
    reason: str
    expires_at: datetime

    def __str__(self) -> str:
        return f"{self.tenant} is pinned to version {self.pin} until {self._day}: {self.reason}"

    @property
    def label(self) -> str:
        return f"{self.tenant} (pinned to version {self.pin} until {self._day})"

    @property
    def _day(self) -> str:
        return f"{self.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class Unreached:
    """A database that did not answer; its homes are not part of the plan."""

    place: Place
    reason: str


@dataclass(frozen=True, slots=True)
class Group:
    """Homes that run the same scripts in the same way; `owing` of them have steps of their version to finish first."""

    cluster: str
    isolation: str
    from_version: int
    to_version: int  # the target, or less for those that are pinned
    homes: int
    tenants: int
    owing: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """The homes that are behind or owe steps, dedicated ones first."""

    template: Template
    target: int
    homes: tuple[DueHome, ...]
    current: int  # homes at the target that owe nothing
    ahead: int  # homes past it, which nothing here touches
    building: int  # homes in the hands of their provisioner
    deleting: tuple[str, ...]  # slugs
    unreached: tuple[Unreached, ...]
    pinned: tuple[PinnedHome, ...]  # which end before the target
    outdated: tuple[Place, ...]  # where the schema `tenancy` itself may be older than this release
    copies: dict[UUID, int] = field(default_factory=dict)  # registry copies that are wrong → the version that is true

    @property
    def groups(self) -> list[Group]:
        """The homes counted by cluster, isolation and versions."""
        homes: Counter[tuple[str, str, int, int]] = Counter()
        tenants: Counter[tuple[str, str, int, int]] = Counter()
        owing: Counter[tuple[str, str, int, int]] = Counter()
        for home in self.homes:
            key = (home.place.cluster.name, home.isolation, home.version, home.target)
            homes[key] += 1
            tenants[key] += home.tenants
            owing[key] += bool(home.owed)
        return [Group(*key, homes[key], tenants[key], owing[key]) for key in sorted(homes)]

    @property
    def beside(self) -> dict[int, tuple[str, ...]]:
        """The steps that versions on the way take after their transaction, by version."""
        start = min((home.version for home in self.homes), default=self.target)
        passed = self.template.versions[start : max((home.target for home in self.homes), default=self.target)]
        return {version.number: tuple(version.beside) for version in passed if version.beside}

    def __str__(self) -> str:
        if not self.homes:
            return f"nothing to do: {self.current} homes at version {self.target}"
        lines = [self._described(group) for group in self.groups]
        lines += [
            f"version {version} goes on after its transaction: {', '.join(f'{step}.sql' for step in steps)}"
            for version, steps in self.beside.items()
        ]
        return "\n".join([*lines, f"{self.current} homes are at version {self.target} already"])

    def _described(self, group: Group) -> str:
        what = f"{group.cluster}: {group.homes} {group.isolation} homes ({group.tenants} tenants)"
        if group.from_version >= group.to_version:
            return f"{what} have steps of version {group.from_version} to finish"
        first = f", {group.owing} with steps of version {group.from_version} to finish first" if group.owing else ""
        return f"{what} from version {group.from_version} to {group.to_version}{first}"


@dataclass(slots=True)
class _Answer:
    place: Place
    rows: list[asyncpg.Record] = field(default_factory=list)
    failure: str | None = None


async def make_plan(
    databases: Databases,
    template: Template,
    target: int | None = None,
    *,
    only: Sequence[str] = (),
    tenancy_version: int = 0,
    leave_out: Set[UUID] = frozenset(),
) -> Plan:
    """The work that brings every home of `template` (or those of the slugs in `only`) to `target`, default the latest.

    `leave_out` names homes that this run has dealt with. Raises `TemplateNotFound` for an unknown version,
    `VersionConflict` where a demanded target lies behind, `TenantNotFound`, `BadRequest` and `TenantPinned` for what
    `only` cannot name. Homes past the latest version are none of its business: an older release may run beside a newer
    one.
    """
    demanded = target is not None
    target = template.latest if target is None else template.version(target).number
    async with databases.registry() as session:
        fleet = await read_fleet(session, template.name, target)
        pinned = {pin.home_id: pin for pin in await pins.active(session, template.name) if pin.version < target}
    gate = asyncio.Semaphore(PLAN_CONNECTIONS)
    arguments = (template.name, target, ",".join(map(str, fleet.copies)), ",".join(only) or None)
    answers = await asyncio.gather(*(_ask(databases, gate, place, arguments) for place in fleet.places))
    plan = _assemble(template, target, fleet, pinned, answers, leave_out, tenancy_version)
    if only:
        _require_all(only, answers, plan)
    elif demanded and plan.ahead and not plan.homes and not leave_out:
        raise VersionConflict(
            f"{plan.ahead} homes are past version {target} already.",
            hint="A template version is never taken back: release a new one instead.",
        )
    return plan


async def _ask(databases: Databases, gate: asyncio.Semaphore, place: Place, arguments: tuple[object, ...]) -> _Answer:
    async with gate:
        try:
            async with databases.admin(place.cluster, place.database, purpose="migrate plan") as connection:
                return _Answer(place, await fetch(connection, _HOMES, *arguments))
        except ClusterUnavailable as error:
            return _Answer(place, failure=f"{error.message} ({error.details})")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            return _Answer(place, failure=str(error))


def _assemble(
    template: Template,
    target: int,
    fleet: Fleet,
    pinned: Mapping[UUID, ActivePin],
    answers: Sequence[_Answer],
    leave_out: Set[UUID],
    tenancy_version: int,
) -> Plan:
    due: list[DueHome] = []
    kept: list[PinnedHome] = []
    deleting: list[str] = []
    copies: dict[UUID, int] = {}
    heads = [answer.rows[0] for answer in answers if answer.rows]
    for answer in answers:
        for row in answer.rows:
            if row["home_id"] is None:
                continue
            if fleet.copies.get(row["home_id"], row["version"]) != row["version"]:
                copies[row["home_id"]] = row["version"]
            pin = pinned.get(row["home_id"])
            if pin is not None and row["version"] < target:
                kept.append(_kept(answer.place, row, pin))
            goal = target if pin is None else pin.version
            # Version 0 is a home that its provisioner has not built yet.
            behind = 0 < row["version"] < goal or (goal <= row["version"] <= target and row["owed"])
            if row["home_id"] in leave_out or not behind:
                continue
            if row["deleting"] and row["isolation"] != "shared":
                deleting.append(row["slug"])
            else:
                due.append(_due(answer.place, row, goal))
    due.sort(key=lambda home: (home.isolation == "shared", home.place.cluster.name, home.place.database))
    return Plan(
        template=template,
        target=target,
        homes=tuple(due),
        current=sum(head["current"] for head in heads),
        ahead=sum(head["ahead"] for head in heads),
        building=fleet.building,
        deleting=tuple(sorted(deleting)),
        unreached=tuple(Unreached(answer.place, answer.failure) for answer in answers if answer.failure),
        pinned=tuple(sorted(kept, key=lambda each: each.tenant)),
        outdated=tuple(a.place for a in answers if a.rows and a.rows[0]["tenancy_version"] < tenancy_version),
        copies=copies,
    )


def _kept(place: Place, row: asyncpg.Record, pin: ActivePin) -> PinnedHome:
    return PinnedHome(
        cluster=place.cluster.name,
        tenant=pin.tenant,
        isolation=row["isolation"],
        version=row["version"],
        pin=pin.version,
        reason=pin.reason,
        expires_at=pin.expires_at,
    )


def _due(place: Place, row: asyncpg.Record, target: int) -> DueHome:
    slug = None if row["isolation"] == "shared" else row["slug"]
    return DueHome(
        place=place,
        home_id=row["home_id"],
        isolation=row["isolation"],
        schema_name=row["schema_name"],
        version=row["version"],
        target=target,
        slug=slug,
        tenants=row["tenants"],
        pages=row["pages"],
        owed=in_order(row["owed"]),
    )


def _require_all(only: Sequence[str], answers: Sequence[_Answer], plan: Plan) -> None:
    rows = {row["slug"]: row for answer in answers for row in answer.rows if row["home_id"] is not None}
    for slug, row in sorted(rows.items()):
        if row["isolation"] == "shared":
            raise BadRequest(
                f"'{slug}' is a shared tenant: its home cannot be migrated for one tenant alone.",
                hint=f"Run without --only; the shared home holds {row['tenants']} tenants.",
            )
        if row["version"] > plan.target:
            raise VersionConflict(
                f"'{slug}' is at version {row['version']}, past version {plan.target}.",
                hint="A template version is never taken back: release a new one instead.",
            )
    for home in plan.pinned:
        raise TenantPinned(
            f"{home} (the target is version {plan.target}).",
            hint=f"Take the pin away first: cp fleet unpin {home.tenant}",
        )
    missing = sorted(set(only) - set(rows))
    if missing and not plan.unreached:
        raise TenantNotFound(f"No home of template '{plan.template.name}' belongs to: {', '.join(missing)}.")
