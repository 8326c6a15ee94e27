"""`cp doctor`: is everything as it should be?"""

from __future__ import annotations

import typer

from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import Json, run
from control_plane.service import open_control_plane
from control_plane.settings import Settings
from control_plane.tenants.diagnosis import Trouble, diagnose

COLUMNS = ("cluster", "code", "object", "problem", "fix")


def doctor(json: Json = False) -> None:
    """Check every cluster's posture and versions, half-made tenants, and objects that only one side knows of.

    Exit 0: nothing is wrong. 1: something is.
    """

    async def work(settings: Settings) -> list[Trouble]:
        async with open_control_plane(settings) as plane:
            return await diagnose(plane.databases)

    troubles = run(work, as_json=json)
    if json:
        print_json(troubles)
    elif troubles:
        print_table(COLUMNS, ([getattr(trouble, column) for column in COLUMNS] for trouble in troubles))
    else:
        typer.echo("Nothing is wrong.")
    if any(trouble.fatal for trouble in troubles):
        raise typer.Exit(1)
