"""`cp deprecations`: what goes away, and who still calls it."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import Json, run
from control_plane.migrator import DeprecationUse
from control_plane.migrator import deprecations as read
from control_plane.service import open_control_plane
from control_plane.settings import Settings

COLUMNS = (
    "template", "api", "resource", "field", "replacement", "since", "sunset", "removed_in", "tenants", "calls"
)  # fmt: skip


def deprecations(
    template: Annotated[str | None, typer.Option("--template", help="One template; all when absent.")] = None,
    json: Json = False,
) -> None:
    """List what the templates deprecate, with the tenants that called it in the last 30 days and how often.

    The service writes its counts every few seconds.
    """

    async def work(settings: Settings) -> list[DeprecationUse]:
        async with open_control_plane(settings) as plane:
            return await read(plane.databases, plane.templates, template)

    found = run(work, as_json=json)
    if json:
        print_json(found)
    elif found:
        print_table(COLUMNS, ([getattr(each, column) for column in COLUMNS] for each in found))
    else:
        typer.echo("Nothing is deprecated.")
