"""`cp migrate-all`: one template version for the whole fleet."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from control_plane.cli.durations import parse_duration, parse_percentage
from control_plane.cli.migrate_json import JsonReport, print_plan_json
from control_plane.cli.migrate_report import LineReport, Report, ScreenReport, print_plan
from control_plane.cli.run import ACTOR, Json, run
from control_plane.migrator import (
    Options,
    Plan,
    RunResult,
    Wave,
    migrate_all,
    plan_migration,
    plan_waves,
    read_policy,
)
from control_plane.migrator.examination import examine
from control_plane.service import ControlPlane, open_control_plane
from control_plane.settings import Settings
from control_plane.templates import Template

if TYPE_CHECKING:
    from control_plane.migrator.locks import VersionLocks

_EXIT_CODES = {"done": 0, "failed": 1, "halted": 3, "aborted": 3}
_CONFIG = Path("migrate.toml")

TemplateName = Annotated[str | None, typer.Option("--template", help="The template; CP_TEMPLATE when absent.")]


def migrate_all_command(
    more: Annotated[list[str] | None, typer.Argument(metavar="", hidden=True)] = None,
    to: Annotated[int | None, typer.Option("--to", min=1, help="The target version; the latest when absent.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="SLUG", help="Only these tenants, as a trial: --only SLUG SLUG …"),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be done, and do nothing.")] = False,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Homes at a time per cluster, at most; CP_MIGRATE_CONCURRENCY when absent."),
    ] = None,
    halt_failures: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N failed homes.")] = None,
    halt_rate: Annotated[
        str | None, typer.Option(metavar="P%", help="Stop when more than P% of the latest 200 homes failed.")
    ] = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="Wait after each wave until `cp migrate resume` is said.")
    ] = False,
    max_duration: Annotated[
        str | None, typer.Option(metavar="90s|15m|2h", help="Take no further home after this time.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Waves and halting; migrate.toml when there is one.", show_default=False)
    ] = None,
    override_sunset: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Let a version remove before its sunset; the reason is recorded."),
    ] = None,
    template: TemplateName = None,
    json: Json = False,
) -> None:
    """Bring every tenant to one template version.

    Homes go in waves: internal tenants, canaries of each kind, a few per cent, the rest, the largest, shared homes.
    A home that cannot go stays where it was and is named; run again to try it again, or to go on after an interruption.
    A tenant that `cp fleet pin` names goes no further than its version.

    Exit 0: done or nothing to do. 1: some homes failed or were not reached. 2: refused, nothing was done. 3: halted.
    """
    if more and not only:
        raise typer.BadParameter(f"unexpected: {' '.join(more)}")
    if override_sunset is not None and not override_sunset.strip():
        raise typer.BadParameter("--override-sunset needs a reason")

    def options() -> Options:
        return Options(
            target=to,
            only=[slug for given in (*(only or ()), *(more or ())) for slug in given.split(",") if slug],
            concurrency=concurrency,
            policy=read_policy(config or (_CONFIG if _CONFIG.is_file() else None)),
            halt_failures=halt_failures,
            halt_rate=None if halt_rate is None else parse_percentage(halt_rate),
            approve=approve,
            max_seconds=None if max_duration is None else parse_duration(max_duration),
            override_sunset=override_sunset,
            actor=ACTOR,
        )

    if plan:
        _show_plan(options, template, json)
        return

    async def work(settings: Settings) -> RunResult:
        async with open_control_plane(settings) as plane:
            return await migrate(plane, plane.templates[template or settings.template], options(), json=json)

    raise typer.Exit(exit_code(run(work, as_json=json)))


async def migrate(
    plane: ControlPlane, template: Template, options: Options, *, run_id: UUID | None = None, json: bool
) -> RunResult:
    """Run and show it; the first SIGINT or SIGTERM drains, the second one cancels."""
    report: Report = JsonReport() if json else ScreenReport() if ScreenReport.suits() else LineReport()
    with _interrupts() as stop, report:
        result = await migrate_all(plane.databases, template, options, run_id=run_id, stop=stop, listener=report.event)
    report.end(result)
    return result


def exit_code(result: RunResult) -> int:
    return _EXIT_CODES[result.status]


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


def _show_plan(options: Callable[[], Options], template: str | None, json: bool) -> None:
    async def work(settings: Settings) -> tuple[Plan, list[Wave], list[VersionLocks]]:
        async with open_control_plane(settings) as plane:
            given = options()
            found = await plan_migration(plane.databases, plane.templates[template or settings.template], given)
            waves = await plan_waves(plane.databases, given, found)
            return found, waves, await examine(plane.databases, found.template, found)

    found, waves, locks = run(work, as_json=json)
    if json:
        print_plan_json(found, waves, locks)
    else:
        print_plan(found, waves, locks)
    if found.unreached:
        raise typer.Exit(1)
