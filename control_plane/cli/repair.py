"""`cp migrate repair`: bring homes back to what their version would build.

With --json one document; fields are added in later releases, and none is taken away or changed:
  compared  homes that were compared
  homes     those that differ: [{cluster, tenant (slug, null for a shared home), home, isolation, template, version,
            status (planned, repaired, failed), statements [SQL], left [{kind, object, problem, aspect, expected, found,
            reason}], sqlstate, error}]
  not_compared  [{cluster, database, tenant, home, error}]; tenant and home are null for a database that did not answer
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import typer

from control_plane.cli.compared import Counting
from control_plane.cli.output import print_json
from control_plane.cli.run import ACTOR, Json, run
from control_plane.migrator.repair import HomeRepair, Repair
from control_plane.migrator.repair import repair as repair_homes
from control_plane.service import open_control_plane
from control_plane.settings import Settings


def repair(
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="SLUG", help="Only the home of this tenant.")
    ] = None,
    home: Annotated[UUID | None, typer.Option("--home", metavar="ID", help="Only the home of this id.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this the plan is printed.")] = False,
    json: Json = False,
) -> None:
    """Bring homes that `cp doctor` names back to what their version would build.

    Each home in one transaction, which is undone when it would not be right afterwards. What the template does not know
    is left, and so is a column of another type. A column that is put back has its default, and no old values.

    Exit 0: nothing differs, or all of it was repaired. 1: something is left.
    """
    if tenant is not None and home is not None:
        raise typer.BadParameter("--tenant and --home exclude each other")

    async def work(settings: Settings) -> Repair:
        async with open_control_plane(settings) as plane:
            return await repair_homes(
                plane.databases,
                plane.templates,
                tenant=tenant,
                home=home,
                apply=apply,
                actor=ACTOR,
                progress=Counting().show,
            )

    result = run(work, as_json=json)
    if json:
        print_json(_document(result))
    else:
        _show(result)
    if not result.settled:
        raise typer.Exit(1)


def _show(result: Repair) -> None:
    for each in result.homes:
        _show_home(each)
    for unknown in result.comparison.uncompared:
        place = unknown.home.place
        typer.echo(f"not compared: {unknown.home.label} on {place.cluster.name}: {unknown.reason}")
    for database in result.comparison.unreached:
        typer.echo(f"not reached: {database.place.cluster.name}, database {database.place.database}: {database.reason}")
    if not result.homes:
        typer.echo(f"nothing to do: {result.comparison.compared} homes are as their versions build them")
    else:
        typer.echo(f"{len(result.homes)} of {result.comparison.compared} homes differ")


def _show_home(each: HomeRepair) -> None:
    home = each.home
    what = {"planned": "would run", "repaired": "ran", "failed": "did not take"}[each.status]
    ran = f"{len(each.statements)} statement" + ("" if len(each.statements) == 1 else "s")
    typer.echo(
        f"{home.label} on {home.place.cluster.name}, {home.isolation} home {home.home_id} at version {home.version} of "
        f"{home.template}: {what} {ran}"
    )
    for statement in each.statements:
        typer.echo("  " + statement.replace("\n", "\n  ") + ";")
    for left in each.left:
        typer.echo(f"  left: {left}")
    if each.error is not None:
        typer.echo(f"  failed: {each.error}" + (f" [{each.sqlstate}]" if each.sqlstate else ""))


def _document(result: Repair) -> dict[str, Any]:
    return {
        "compared": result.comparison.compared,
        "homes": [
            {
                "cluster": each.home.place.cluster.name,
                "tenant": each.home.slug,
                "home": each.home.home_id,
                "isolation": each.home.isolation,
                "template": each.home.template,
                "version": each.home.version,
                "status": each.status,
                "statements": each.statements,
                "left": [left.difference.document() | {"reason": left.reason} for left in each.left],
                "sqlstate": each.sqlstate,
                "error": each.error,
            }
            for each in result.homes
        ],
        "not_compared": [
            {
                "cluster": each.home.place.cluster.name,
                "database": each.home.place.database,
                "tenant": each.home.slug,
                "home": each.home.home_id,
                "error": each.reason,
            }
            for each in result.comparison.uncompared
        ]
        + [
            {
                "cluster": each.place.cluster.name,
                "database": each.place.database,
                "tenant": None,
                "home": None,
                "error": each.reason,
            }
            for each in result.comparison.unreached
        ],
    }
