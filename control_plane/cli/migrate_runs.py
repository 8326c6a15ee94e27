"""`cp migrate`: the versions of the fleet, and the runs that change them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from control_plane.cli.fleet import OneTemplate, show_fleet
from control_plane.cli.migrate import exit_code, migrate
from control_plane.cli.output import print_json, print_table
from control_plane.cli.repair import repair
from control_plane.cli.run import ACTOR, Json, run
from control_plane.migrator import RunResult, operators
from control_plane.migrator.operators import Explanation, RunRecord
from control_plane.pools.databases import Databases
from control_plane.service import open_control_plane
from control_plane.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Look at the versions of the fleet, and steer the runs that change them.")

T = TypeVar("T")

COLUMNS = ("id", "status", "wave", "template", "target", "done", "failed", "planned", "started_at", "finished_at")
WATCHED = ("queued", "running", "paused")

Ref = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, the beginning of it, or `last`.")]


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    json: Json = False,
) -> None:
    """The latest runs."""
    records = _with_databases(lambda databases: operators.history(databases, limit), json)
    if json:
        print_json(records)
    else:
        print_table(COLUMNS, ([getattr(record, column) for column in COLUMNS] for record in records))


@app.command()
def explain(ref: Ref, json: Json = False) -> None:
    """What a run has done, why it stopped, and what failed in which way."""
    found: Explanation = _with_databases(lambda databases: operators.explain(databases, ref), json)
    if json:
        print_json({"run": found.run, "failures": [group._asdict() for group in found.failures]})
        return
    _show(found.run)
    for group in found.failures:
        some = ", ".join(tenant or "a shared home" for tenant in group.tenants)
        more = f" and {group.homes - len(group.tenants)} more" if group.homes > len(group.tenants) else ""
        typer.echo(f"{group.homes} failed [{group.sqlstate or '-'}]: {group.error}\n  {some}{more}")


@app.command()
def watch(ref: Ref = "last", json: Json = False) -> None:
    """Show how a run goes on, until it is over; the run does not mind."""

    async def work(settings: Settings) -> RunRecord:
        async with open_control_plane(settings) as plane:
            shown = None
            while True:
                record = await operators.show(plane.databases, ref)
                if (now := _line(record)) != shown:
                    print_json(record) if json else typer.echo(now)
                    shown = now
                if record.status not in WATCHED:
                    return record
                await asyncio.sleep(1.0)

    run(work, as_json=json)


@app.command()
def pause(ref: Ref = "last", json: Json = False) -> None:
    """Let a run finish the homes in flight and take no further ones."""
    _steer(lambda databases: operators.pause(databases, ref, actor=ACTOR), json)


@app.command()
def abort(ref: Ref = "last", json: Json = False) -> None:
    """End a run; homes that it has brought to the target stay there."""
    _steer(lambda databases: operators.abort(databases, ref, actor=ACTOR), json)


@app.command()
def resume(ref: Ref = "last", json: Json = False) -> None:
    """Let a paused run go on; one that halted or lost its runner goes on in this process.

    Exit codes as of `cp migrate-all`.
    """

    async def work(settings: Settings) -> RunResult | RunRecord:
        async with open_control_plane(settings) as plane:
            record, options = await operators.go_on(plane.databases, ref, actor=ACTOR)
            if options is None:
                return record
            return await migrate(plane, plane.templates[record.template], options, run_id=record.id, json=json)

    _finish(run(work, as_json=json), json)


@app.command()
def join(ref: Ref = "last", json: Json = False) -> None:
    """Work on a run beside its runner, on this machine; they share the homes."""

    async def work(settings: Settings) -> RunResult:
        async with open_control_plane(settings) as plane:
            record, options = await operators.join(plane.databases, ref, actor=ACTOR)
            return await migrate(plane, plane.templates[record.template], options, run_id=record.id, json=json)

    _finish(run(work, as_json=json), json)


@app.command()
def status(template: OneTemplate = None, json: Json = False) -> None:
    """The same as `cp fleet`."""
    show_fleet(template, json)


def _steer(work: Callable[[Databases], Awaitable[RunRecord]], json: bool) -> None:
    record = _with_databases(work, json)
    if json:
        print_json(record)
    else:
        _show(record)


def _with_databases(work: Callable[[Databases], Awaitable[T]], json: bool) -> T:
    async def opened(settings: Settings) -> T:
        async with open_control_plane(settings) as plane:
            return await work(plane.databases)

    return run(opened, as_json=json)


def _finish(found: RunResult | RunRecord, json: bool) -> None:
    if isinstance(found, RunResult):
        raise typer.Exit(exit_code(found))
    if json:
        print_json(found)
    else:
        _show(found)


app.command("repair")(repair)


def _show(record: RunRecord) -> None:
    typer.echo(f"run {record.id} of {record.template} to version {record.target}, by {record.actor}")
    typer.echo(_line(record))
    if record.reason:
        typer.echo(f"it stopped because {record.reason}")
    if record.status in WATCHED and not record.runner:
        how = "it waits for a worker" if record.durable else f"to go on: cp migrate resume {str(record.id)[:8]}"
        typer.echo(f"nobody works on it; {how}")


def _line(record: RunRecord) -> str:
    wave = f", wave {record.wave}" if record.wave and record.status in WATCHED else ""
    wish = f" (to {record.wish})" if record.wish and record.wish + "d" != record.status else ""
    return f"{record.status}{wish}{wave}: {record.done} done, {record.failed} failed of {record.planned}"
