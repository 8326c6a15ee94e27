"""What commands show of homes that were compared with their templates.

`cp doctor --json` prints a list of objects; fields are added in later releases, and none is taken away or changed:
  cluster (null for the registry), code, object, problem, fix, fatal (whether the exit code is 1 for it)
of a home whose code is `structure` also
  home (its id), isolation, template, version,
  differences [{kind, object, problem (missing, extra, different), aspect, expected, found}]; the last three are null
  but for `different`. The names of the home stand in them as <home>, <login> and <tenant>.
Codes of homes are `structure` and `not_compared`.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

import typer

from control_plane.migrator.comparison import Comparison, DifferingHome

_SECONDS_BETWEEN_LINES = 2.0
_SHOWN = 5  # differences of a home, for people


class Counting:
    """A line of progress on stderr every few seconds; nothing for a fleet that takes less."""

    def __init__(self) -> None:
        self._spoke = monotonic()

    def show(self, homes: int, databases: int, of: int) -> None:
        if monotonic() - self._spoke >= _SECONDS_BETWEEN_LINES:
            self._spoke = monotonic()
            typer.echo(f"{homes} homes looked at, {databases} of {of} databases", err=True)


def comparison_rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """A row per home that differs or could not be compared, and per database that did not answer."""
    for differing in comparison.differing:
        yield _differing(differing)
    for home in comparison.uncompared:
        place = home.home.place
        fix = "nothing, if a later release runs beside this one" if home.expected else "run: cp doctor"
        yield _row(place.cluster.name, "not_compared", home.home.label, home.reason, fix, fatal=not home.expected)
    for each in comparison.unreached:
        problem = f"did not answer: {each.reason}"
        yield _row(each.place.cluster.name, "not_compared", each.place.database, problem, "run: cp doctor", fatal=True)


def _differing(differing: DifferingHome) -> dict[str, Any]:
    home, found = differing.home, [str(each) for each in differing.differences]
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    name = f"--home {home.home_id}" if home.slug is None else f"--tenant {home.slug}"
    problem = f"is not what version {home.version} of {home.template} builds: {'; '.join(found[:_SHOWN])}{more}"
    fix = "nothing has to be done" if differing.harmless else f"see: cp migrate repair {name}"
    row = _row(home.place.cluster.name, "structure", home.label, problem, fix, fatal=not differing.harmless)
    return row | {
        "home": home.home_id,
        "isolation": home.isolation,
        "template": home.template,
        "version": home.version,
        "differences": [each.document() for each in differing.differences],
    }


def _row(cluster: str, code: str, object: str, problem: str, fix: str, *, fatal: bool) -> dict[str, Any]:
    return {"cluster": cluster, "code": code, "object": object, "problem": problem, "fix": fix, "fatal": fatal}
