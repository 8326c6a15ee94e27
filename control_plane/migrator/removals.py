"""What a release takes away, and whether its time has come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import BeforeSunset, BelowMinimum
from control_plane.migrator.plan import Plan
from control_plane.registry import audit
from control_plane.templates import Deprecation, Template

_SHOWN = 5  # homes or databases in a message


def early_removals(template: Template, released: int | None, target: int) -> list[Deprecation]:
    """What versions after `released` up to `target` remove before its sunset.

    A template that was never released has promised nothing to anybody.
    """
    if released is None:
        return []
    today = datetime.now(UTC).date()
    return [
        entry
        for entry in template.manifest.deprecations
        if entry.removed_in is not None and released < entry.removed_in <= target and today < entry.sunset
    ]


def require_sunset(template: Template, released: int | None, target: int, override: str | None) -> None:
    """Raises `BeforeSunset` where a removal is early and nobody says why."""
    early = early_removals(template, released, target)
    if early and not override:
        listed = "; ".join(f"{entry} in version {entry.removed_in}, promised until {entry.sunset}" for entry in early)
        raise BeforeSunset(f"Template '{template.name}' would remove before its sunset: {listed}.")


def require_minimum(template: Template, released: int | None, plan: Plan) -> None:
    """Raises `BelowMinimum` where `plan` would begin a contract version before every tenant has what replaces it.

    That is the version before: programs that read the old shape run until all homes have the new one. A version that
    was begun is none of its business, so that homes which were left behind can follow.
    """
    contracts = [v.number for v in template.versions[released or 0 : plan.target] if v.contract is not None]
    if released is None or not contracts:
        return
    minimum = contracts[0] - 1
    pinned = {each.tenant: each.label for each in plan.pinned if each.version < minimum}
    others = sorted(home.label for home in plan.homes if home.version < minimum and home.slug not in pinned)
    below = [*sorted(pinned.values()), *others]
    owing = sorted(home.label for home in plan.homes if home.version == minimum and home.owed)
    unknown = sorted(f"{each.place.cluster.name}, database {each.place.database}" for each in plan.unreached)
    if below or owing or unknown:
        unpin = f" A pinned tenant stays below it until its pin ends: cp fleet unpin {min(pinned)}." if pinned else ""
        shown = [f"below version {minimum}: {_first(below)}"] if below else []
        shown += [f"with steps of version {minimum} to finish: {_first(owing)}"] if owing else []
        shown += [f"not reached: {_first(unknown)}"] if unknown else []
        raise BelowMinimum(
            f"Version {minimum + 1} of template '{template.name}' takes away what earlier versions use, and not every "
            f"home is at version {minimum}: {'; '.join(shown)}.",
            hint=f"Run cp migrate-all --to {minimum}, deploy what reads the new shape, and come back.{unpin}",
        )


def _first(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def record_override(
    session: AsyncSession, actor: str, template: Template, early: Sequence[Deprecation], reason: str
) -> None:
    """Note in the audit log that `early` goes before its sunset, and why."""
    removals = [entry.model_dump(mode="json") for entry in early]
    audit.record(session, actor, "template.override_sunset", template=template.name, reason=reason, removals=removals)
