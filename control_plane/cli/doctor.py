"""`cp doctor`: is everything as it should be?"""

from __future__ import annotations

from typing import Any

import typer

from control_plane.cli.compared import Counting, comparison_rows
from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import Json, run
from control_plane.migrator.comparison import Comparison, compare
from control_plane.service import open_control_plane
from control_plane.settings import Settings
from control_plane.tenants.diagnosis import Trouble, diagnose

COLUMNS = ("cluster", "code", "object", "problem", "fix")


def doctor(json: Json = False) -> None:
    """Check every cluster's posture and versions, half-made tenants, and objects that only one side knows of.

    Then compare what stands in each home with what its template's version would build.

    Exit 0: nothing is wrong. 1: something is.
    """

    async def work(settings: Settings) -> tuple[list[Trouble], Comparison]:
        async with open_control_plane(settings) as plane:
            troubles = await diagnose(plane.databases)
            away = {trouble.cluster for trouble in troubles if trouble.code == "unreachable" and trouble.cluster}
            compared = await compare(plane.databases, plane.templates, leave_out=away, progress=Counting().show)
            return troubles, compared

    troubles, comparison = run(work, as_json=json)
    found: list[dict[str, Any]] = [*map(_document, troubles), *comparison_rows(comparison)]
    if json:
        print_json(found)
    elif found:
        print_table(COLUMNS, ([each[column] for column in COLUMNS] for each in found))
    else:
        typer.echo("Nothing is wrong.")
    if any(each["fatal"] for each in found):
        raise typer.Exit(1)


def _document(trouble: Trouble) -> dict[str, Any]:
    return {name: getattr(trouble, name) for name in (*COLUMNS, "fatal")}
