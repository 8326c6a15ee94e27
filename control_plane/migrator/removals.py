"""What a release takes away, and whether its time has come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import BeforeSunset
from control_plane.registry import audit
from control_plane.templates import Deprecation, Template


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


def record_override(
    session: AsyncSession, actor: str, template: Template, early: Sequence[Deprecation], reason: str
) -> None:
    """Note in the audit log that `early` goes before its sunset, and why."""
    removals = [entry.model_dump(mode="json") for entry in early]
    audit.record(session, actor, "template.override_sunset", template=template.name, reason=reason, removals=removals)
