"""`cp migrate-all` and `cp migrate status`: one template version for the whole fleet."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli.migrate_report import JsonReport, LineReport, Report, ScreenReport, print_plan, print_plan_json
from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import ACTOR, Json, run
from control_plane.migrator import Options, RunResult, VersionCount, fleet_versions, migrate_all, plan_migration
from control_plane.migrator.examination import examine
from control_plane.migrator.plan import Plan, Unreached
from control_plane.service import open_control_plane
from control_plane.settings import Settings

if TYPE_CHECKING:
    from control_plane.migrator.locks import VersionLocks

_EXIT_CODES = {"done": 0, "failed": 1, "halted": 3}

migrate = typer.Typer(no_args_is_help=True, help="Look at the versions of the fleet.")

TemplateName = Annotated[str | None, typer.Option("--template", help="The template; CP_TEMPLATE when absent.")]


def register(app: typer.Typer) -> None:
    """Add `migrate-all` and `migrate` to the program."""
    app.command("migrate-all")(migrate_all_command)
    app.add_typer(migrate, name="migrate")


def migrate_all_command(
    more: Annotated[list[str] | None, typer.Argument(metavar="", hidden=True)] = None,
    to: Annotated[int | None, typer.Option("--to", min=1, help="The target version; the latest when absent.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="SLUG", help="Only these tenants, as a trial: --only SLUG SLUG …"),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be done, and do nothing.")] = False,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Homes at a time per cluster; CP_MIGRATE_CONCURRENCY when absent.")
    ] = None,
    halt_failures: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N failed homes.")] = None,
    override_sunset: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Let a version remove before its sunset; the reason is recorded."),
    ] = None,
    template: TemplateName = None,
    json: Json = False,
) -> None:
    """Bring every tenant to one template version.

    A home that cannot go stays where it was and is named; run again to try it again, or to go on after an interruption.

    Exit 0: done or nothing to do. 1: some homes failed or were not reached. 2: refused, nothing was done. 3: halted.
    """
    if more and not only:
        raise typer.BadParameter(f"unexpected: {' '.join(more)}")
    if override_sunset is not None and not override_sunset.strip():
        raise typer.BadParameter("--override-sunset needs a reason")
    options = Options(
        target=to,
        only=[slug for given in (*(only or ()), *(more or ())) for slug in given.split(",") if slug],
        concurrency=concurrency,
        halt_failures=halt_failures,
        override_sunset=override_sunset,
        actor=ACTOR,
    )
    if plan:
        _show_plan(options, template, json)
        return
    report: Report = JsonReport() if json else ScreenReport() if ScreenReport.suits() else LineReport()
    result = run(lambda settings: _migrate(settings, options, template, report), as_json=json)
    raise typer.Exit(_EXIT_CODES[result.status])


async def _migrate(settings: Settings, options: Options, template: str | None, report: Report) -> RunResult:
    async with open_control_plane(settings) as plane:
        with _interrupts() as stop, report:
            result = await migrate_all(
                plane.databases,
                plane.templates[template or settings.template],
                options,
                stop=stop,
                listener=report.event,
            )
        report.end(result)
        return result


@contextmanager
def _interrupts() -> Iterator[asyncio.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second one cancels the homes in flight."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def interrupt() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, interrupt)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _show_plan(options: Options, template: str | None, json: bool) -> None:
    async def work(settings: Settings) -> tuple[Plan, list[VersionLocks]]:
        async with open_control_plane(settings) as plane:
            found = await plan_migration(plane.databases, plane.templates[template or settings.template], options)
            return found, await examine(plane.databases, found.template, found)

    found, locks = run(work, as_json=json)
    if json:
        print_plan_json(found, locks)
    else:
        print_plan(found, locks)
    if found.unreached:
        raise typer.Exit(1)


@migrate.command()
def status(template: TemplateName = None, json: Json = False) -> None:
    """How many homes of each cluster and isolation are at which version; exit 1 when a database did not answer."""

    async def work(settings: Settings) -> tuple[list[VersionCount], list[Unreached]]:
        async with open_control_plane(settings) as plane:
            return await fleet_versions(plane.databases, template)

    counts, unreached = run(work, as_json=json)
    missing = [{"cluster": u.place.cluster.name, "database": u.place.database, "error": u.reason} for u in unreached]
    if json:
        print_json({"versions": counts, "unreached": missing})
    else:
        columns = ("cluster", "template", "isolation", "version", "homes", "tenants")
        print_table(columns, ([getattr(count, column) for column in columns] for count in counts))
        for each in missing:
            typer.echo(f"not reached: {each['cluster']}, database {each['database']}: {each['error']}", err=True)
    if missing:
        raise typer.Exit(1)
