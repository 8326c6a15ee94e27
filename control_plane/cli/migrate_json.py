"""What `migrate-all --json` prints: one JSON line per event, for programs; `docs/releasing.md` describes each.

Fields are added in later releases, and none is taken away or changed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from control_plane.cli.migrate_report import Report
from control_plane.migrator import (
    Event,
    HomeResult,
    Paced,
    Plan,
    Planned,
    RunResult,
    Started,
    StepProgress,
    Waiting,
    Wave,
)
from control_plane.migrator.documents import plan_document, preview_document

if TYPE_CHECKING:
    from control_plane.migrator.locks import VersionLocks


_SECONDS_BETWEEN_STEPS = 1.0


class JsonReport(Report):
    """One line per event on stdout."""

    def __init__(self) -> None:
        self._told = -inf  # when a step was told last

    def event(self, event: Event) -> None:
        if isinstance(event, StepProgress):
            if monotonic() - self._told < _SECONDS_BETWEEN_STEPS:
                return
            self._told = monotonic()
        _print_line(_document(event))

    def end(self, result: RunResult) -> None:
        _print_line(
            {
                "event": "run",
                "run": str(result.run_id) if result.run_id else None,
                "template": result.template,
                "target": result.target,
                "status": result.status,
                "done": result.done,
                "failed": result.failed,
                "skipped": result.skipped,
                "left": result.left,
                "current": result.current,
                "seconds": round(result.seconds, 3),
                "reason": result.reason,
            }
        )


def print_plan_json(plan: Plan, waves: Sequence[Wave], locks: Sequence[VersionLocks]) -> None:
    """The plan as one JSON line, with the lock reports of versions that are new to the fleet."""
    _print_line({"event": "plan"} | preview_document(plan, waves, locks))


def _document(event: Event) -> dict[str, Any]:
    if isinstance(event, Planned):
        return {"event": "plan"} | plan_document(event.plan)
    if isinstance(event, HomeResult):
        return _home_document(event)
    if isinstance(event, Started):
        return {"event": "started", "run": str(event.run_id)}
    if isinstance(event, Waiting):
        return {"event": "waiting", "run": str(event.run_id), "wave": event.name}
    if isinstance(event, StepProgress):
        return {
            "event": "step",
            "cluster": event.cluster,
            "tenant": event.slug,
            "home": str(event.home_id),
            "version": event.version,
            "step": event.step,
            "statement": event.statement,
            "statements": event.statements,
            "rows": event.rows,
        }
    if isinstance(event, Paced):
        return {"event": "pace", "cluster": event.cluster, "limit": event.limit, "sign": event.sign}
    return {"event": "wave", "name": event.name, "homes": event.homes}


def _home_document(result: HomeResult) -> dict[str, Any]:
    return {
        "event": "home",
        "cluster": result.cluster,
        "tenant": result.slug,
        "home": str(result.home_id),
        "isolation": result.isolation,
        "from": result.from_version,
        "to": result.to_version,
        "reached": result.reached,
        "status": result.status,
        "sqlstate": result.sqlstate,
        "error": result.error,
        "milliseconds": result.milliseconds,
        "attempts": result.attempts,
        "rows": result.touched.rows if result.touched else None,
        "objects": result.touched.objects if result.touched else None,
    }


def _print_line(document: dict[str, Any]) -> None:
    # At once: whoever reads a pipe waits for it, and a run that is killed has said what it did.
    print(json.dumps(document, ensure_ascii=False), flush=True)
