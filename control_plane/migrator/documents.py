"""A plan as JSON, the same on the command line and over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from control_plane.migrator.plan import Plan
from control_plane.migrator.waves import Wave

if TYPE_CHECKING:
    from control_plane.migrator.locks import VersionLocks


def plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "template": plan.template.name,
        "target": plan.target,
        "homes": len(plan.homes),
        "current": plan.current,
        "ahead": plan.ahead,
        "building": plan.building,
        "deleting": list(plan.deleting),
        "pinned": [
            {
                "cluster": home.cluster,
                "tenant": home.tenant,
                "isolation": home.isolation,
                "version": home.version,
                "pin": home.pin,
                "reason": home.reason,
                "expires_at": home.expires_at.isoformat(),
            }
            for home in plan.pinned
        ],
        "groups": [
            {
                "cluster": group.cluster,
                "isolation": group.isolation,
                "from": group.from_version,
                "to": group.to_version,
                "homes": group.homes,
                "tenants": group.tenants,
                "owing": group.owing,
            }
            for group in plan.groups
        ],
        "steps": [{"version": version, "steps": list(steps)} for version, steps in plan.beside.items()],
        "unreached": [
            {"cluster": each.place.cluster.name, "database": each.place.database, "error": each.reason}
            for each in plan.unreached
        ],
    }


def preview_document(plan: Plan, waves: Sequence[Wave], locks: Sequence[VersionLocks]) -> dict[str, Any]:
    """The plan, with its waves and the lock reports of versions that are new to the fleet."""
    shown = [{"name": wave.name, "homes": len(wave.homes)} for wave in waves]
    return plan_document(plan) | {"waves": shown, "locks": [asdict(each) for each in locks]}
