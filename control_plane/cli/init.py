"""`cp init`: makes or upgrades an installation."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.output import print_json
from control_plane.cli.run import ACTOR, Json, run
from control_plane.service import Initialised, initialise, open_control_plane
from control_plane.settings import Settings


def init(
    template_version: Annotated[
        int | None, typer.Option(min=1, help="Release the template up to this version; the latest when absent.")
    ] = None,
    no_cluster: Annotated[
        bool, typer.Option("--no-cluster", help="Do not register the registry's server as the first cluster.")
    ] = False,
    json: Json = False,
) -> None:
    """Migrate the registry, register the first cluster, upgrade `tenancy` everywhere, release the template.

    Safe to repeat: run it before each release starts.
    """

    async def work(settings: Settings) -> Initialised:
        async with open_control_plane(settings, upgrade=True) as plane:
            return await initialise(plane, template_version=template_version, first_cluster=not no_cluster, actor=ACTOR)

    done = run(work, as_json=json)
    if json:
        print_json(done)
        return
    typer.echo(f"Installation {done.installation_id}")
    typer.echo(f"Template {done.template}: released up to version {done.released}.")
    for name, state in done.clusters.items():
        typer.echo(f"Cluster {name}: {state}")
