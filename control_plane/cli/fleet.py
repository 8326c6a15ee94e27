"""`cp fleet`: the versions of the fleet, and the tenants that are kept from the next one.

What `cp fleet --json` prints is one document; fields are added in later releases, and none is taken away or changed:
  versions   [{cluster, template, isolation, version, homes, tenants, owing}]: owing are homes that have steps of the
             version to finish
  skews      [{cluster, template, isolation, target, oldest, behind, homes, tenants}]: `target` is the version that new
             tenants get, `behind` how many versions the oldest home is before it
  unreached  [{cluster, database, error}]: databases that did not answer, whose homes are not counted
  failed     [{run, cluster, tenant (null for a shared home), home, from, to, sqlstate, error}]: of each template's
             latest run
  pinned     [{tenant, template, cluster, isolation, at, version, reason, actor, created_at, expires_at}]
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from control_plane.cli.durations import parse_duration
from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import ACTOR, Json, run
from control_plane.errors import InvalidInput
from control_plane.migrator.fleet import Skew, Standing, fleet_standing
from control_plane.service import open_control_plane
from control_plane.settings import Settings
from control_plane.tenants import pins
from control_plane.tenants.pins import PinRecord

app = typer.Typer()

PIN_COLUMNS = ("tenant", "at", "version", "expires_at", "reason", "actor", "template", "cluster")

OneTemplate = Annotated[str | None, typer.Option("--template", help="One template; all when absent.")]
Ref = Annotated[str, typer.Argument(metavar="TENANT", help="Slug or id.")]


@app.callback(invoke_without_command=True)
def fleet(context: typer.Context, template: OneTemplate = None, json: Json = False) -> None:
    """Show how many homes are at which version, and how far the oldest is behind.

    A cell counts homes, with their tenants in brackets where these are not as many; `behind` counts versions. Exit 1
    when a database did not answer.
    """
    if context.invoked_subcommand is None:
        show_fleet(template, json)


def show_fleet(template: str | None, json: bool) -> None:
    async def work(settings: Settings) -> Standing:
        async with open_control_plane(settings) as plane:
            return await fleet_standing(plane.databases, template)

    found = run(work, as_json=json)
    if json:
        print_json(_document(found))
    else:
        _print(found)
    if found.unreached:
        raise typer.Exit(1)


@app.command()
def pin(
    tenant: Ref,
    reason: Annotated[str, typer.Option(help="Why; whoever plans a run reads it.")],
    expires: Annotated[
        str, typer.Option(metavar="DATE|TIME|90d", help="When it ends, 180 days ahead at most; a date means 00:00 UTC.")
    ],
    version: Annotated[
        int | None, typer.Option(min=1, help="How far it may be taken; the version that it is at when absent.")
    ] = None,
    json: Json = False,
) -> None:
    """Let no run take a tenant past a version, until a day. A shared tenant cannot be pinned."""

    async def work(settings: Settings) -> PinRecord:
        until = _moment(expires)
        async with open_control_plane(settings) as plane:
            return await pins.pin_tenant(
                plane.databases,
                plane.templates,
                tenant,
                version=version,
                reason=reason,
                expires=until,
                actor=ACTOR,
            )

    record = run(work, as_json=json)
    if json:
        print_json(record)
    else:
        _print_pins([record])


@app.command()
def unpin(tenant: Ref, json: Json = False) -> None:
    """Let runs take a tenant along again."""

    async def work(settings: Settings) -> None:
        async with open_control_plane(settings) as plane:
            await pins.unpin_tenant(plane.databases, tenant, actor=ACTOR)

    run(work, as_json=json)
    if not json:
        typer.echo(f"{tenant} is not pinned any more.")


@app.command("pins")
def list_pins(json: Json = False) -> None:
    """List the tenants that are pinned."""

    async def work(settings: Settings) -> list[PinRecord]:
        async with open_control_plane(settings) as plane:
            return await pins.list_pins(plane.databases)

    found = run(work, as_json=json)
    if json:
        print_json(found)
    elif found:
        _print_pins(found)
    else:
        typer.echo("No tenant is pinned.")


def _moment(text: str) -> datetime | timedelta:
    """What a duration, a date or a time with its zone stands for."""
    if text[-1:] in ("s", "m", "h", "d"):
        return timedelta(seconds=parse_duration(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"'{text}' is no date, time or duration.", hint="2026-03-31, 2026-03-31T12:00:00Z, or 30d."
        ) from None
    return moment.replace(tzinfo=UTC) if len(text) == len("2026-03-31") else moment


def _document(found: Standing) -> dict[str, Any]:
    skews = [{name: getattr(skew, name) for name in _SKEW} for skew in found.skews]
    failed = [
        {
            "run": home.run_id,
            "cluster": home.cluster,
            "tenant": home.tenant,
            "home": home.home_id,
            "from": home.from_version,
            "to": home.to_version,
            "sqlstate": home.sqlstate,
            "error": home.error,
        }
        for home in found.failed
    ]
    pinned = [{name: value for name, value in each._asdict().items() if name != "home_id"} for each in found.pinned]
    unreached = [
        {"cluster": each.place.cluster.name, "database": each.place.database, "error": each.reason}
        for each in found.unreached
    ]
    return {"versions": found.versions, "skews": skews, "unreached": unreached, "failed": failed, "pinned": pinned}


_SKEW = ("cluster", "template", "isolation", "target", "oldest", "behind", "homes", "tenants")


def _print(found: Standing) -> None:
    shown = sorted({count.version for count in found.versions} | {skew.target for skew in found.skews})
    columns = ("cluster", "template", "isolation", *(f"v{version}" for version in shown), "target", "behind")
    print_table(columns, (_row(skew, shown) for skew in found.skews))
    for each in found.unreached:
        where = f"{each.place.cluster.name}, database {each.place.database}"
        typer.echo(f"not reached: {where}: {each.reason}", err=True)
    for count in found.versions:
        if count.owing:
            which = f"{count.owing} {count.isolation} homes on {count.cluster}"
            typer.echo(f"owing: {which} have steps of version {count.version} of {count.template} to finish")
    for home in found.failed:
        who = home.tenant or "a shared home"
        typer.echo(f"failed: {who} on {home.cluster} stays at version {home.from_version}: {home.error}")
    for pin in found.pinned:
        typer.echo(
            f"pinned: {pin.tenant} to version {pin.version} until {pin.expires_at:%Y-%m-%d %H:%M %Z}: {pin.reason}"
        )


def _row(skew: Skew, versions: list[int]) -> list[object]:
    at = {count.version: count for count in skew.at}
    cells = []
    for version in versions:
        count = at.get(version)
        if count is None:
            cells.append("")
        else:
            cells.append(f"{count.homes}" if count.homes == count.tenants else f"{count.homes} ({count.tenants})")
    return [skew.cluster, skew.template, skew.isolation, *cells, skew.target, skew.behind]


def _print_pins(found: list[PinRecord]) -> None:
    print_table(PIN_COLUMNS, ([getattr(record, column) for column in PIN_COLUMNS] for record in found))
