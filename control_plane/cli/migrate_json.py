"""What `migrate-all --json` prints: one JSON line per event, for programs.

Each line has an `event`; fields are added in later releases, and none is taken away or changed:
  plan     template, target, homes (behind), current, ahead, building, deleting [slug],
           groups [{cluster, isolation, from, homes, tenants, owing}], unreached [{cluster, database, error}]; owing are
           homes that have steps of the version in `from` to finish first;
           steps [{version, steps [concurrent, backfill]}] that versions on the way take after their transaction;
           with --plan also waves [{name, homes}] and locks [{version, name, locks [{relation, mode, file, rewritten,
           scans}]}], one entry for each version that is new to the fleet: what it keeps waiting, measured on a home
           that nobody keeps
  started  run: the id by which `cp migrate` names it
  wave     name, homes
  waiting  run, wave: nothing goes on until `cp migrate resume`
  step     cluster, tenant, home, version, step (concurrent, backfill), statement (which is under way, from 1),
           statements, rows (that the step has changed so far); at most one line a second, whichever homes are at one
  home     cluster, tenant (slug, null for a shared home), home, isolation, from, to, reached (where it is now),
           status (done, failed, skipped), sqlstate, error, milliseconds, attempts, rows (that the version wrote),
           objects {tables, views, indexes, functions: [names that it created or changed]}; both null where this run did
           not do or did not hear it
  run      run, template, target, status (done, failed, halted, aborted), done, failed, skipped, left, current, seconds,
           reason (why it stopped, or null)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from math import inf
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from control_plane.migrator import Event, HomeResult, Plan, Planned, RunResult, Started, StepProgress, Waiting, Wave

if TYPE_CHECKING:
    from control_plane.migrator.locks import VersionLocks


_SECONDS_BETWEEN_STEPS = 1.0


class JsonReport:
    """One line per event on stdout."""

    def __init__(self) -> None:
        self._told = -inf  # when a step was told last

    def __enter__(self) -> JsonReport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout.flush()

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
        sys.stdout.flush()


def print_plan_json(plan: Plan, waves: Sequence[Wave], locks: Sequence[VersionLocks]) -> None:
    """The plan as one JSON line, with the lock reports of versions that are new to the fleet."""
    shown = [{"name": wave.name, "homes": len(wave.homes)} for wave in waves]
    _print_line(_plan_document(plan) | {"waves": shown, "locks": [asdict(each) for each in locks]})


def _document(event: Event) -> dict[str, Any]:
    if isinstance(event, Planned):
        return _plan_document(event.plan)
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
    return {"event": "wave", "name": event.name, "homes": event.homes}


def _plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "event": "plan",
        "template": plan.template.name,
        "target": plan.target,
        "homes": len(plan.homes),
        "current": plan.current,
        "ahead": plan.ahead,
        "building": plan.building,
        "deleting": list(plan.deleting),
        "groups": [
            {
                "cluster": group.cluster,
                "isolation": group.isolation,
                "from": group.from_version,
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
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
