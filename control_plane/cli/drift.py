"""`cp drift`: what the projections of tenants show that is no longer so."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import Json, run
from control_plane.service import open_control_plane
from control_plane.settings import Settings
from control_plane.tenants.drift import Drift, check_drift

COLUMNS = ("tenant", "projection", "compared", "drifted", "repaired", "problem")
_EVERY = 50_000  # keys of a projection between two lines of progress


def drift(
    tenants: Annotated[list[str] | None, typer.Argument(help="Slugs or ids; all tenants when absent.")] = None,
    resync: Annotated[bool, typer.Option("--resync", help="Repair what differs, 500 keys per transaction.")] = False,
    json: Json = False,
) -> None:
    """Compare the projections of tenants with their definitions, key by key.

    Exit 0: nothing differs, or all of it was repaired. 1: something is left.
    """

    async def work(settings: Settings) -> list[Drift]:
        async with open_control_plane(settings) as plane:
            checked = check_drift(plane.databases, plane.templates, tenants or (), resync=resync, progress=_progress)
            return [each async for each in checked]

    found = run(work, as_json=json)
    if json:
        print_json(found)
    elif found:
        print_table(COLUMNS, ([getattr(each, column) for column in COLUMNS] for each in found))
    else:
        typer.echo("There is no projection.")
    if any(each.left for each in found):
        raise typer.Exit(1)


def _progress(tenant: str, projection: str, compared: int) -> None:
    if compared and compared % _EVERY == 0:
        typer.echo(f"{tenant} {projection}: {compared} keys compared", err=True)
