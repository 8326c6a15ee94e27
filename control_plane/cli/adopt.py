"""`cp adopt`: views and projections beside the tables of a database that was there before."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from control_plane.adoption import applying, inspection, keeping, planning, records, suspension
from control_plane.adoption.building import CHUNK, Progress, Walked
from control_plane.adoption.inspection import TableReport
from control_plane.adoption.keeping import Drift
from control_plane.adoption.planning import Plan, PlanRequest
from control_plane.adoption.records import AdoptionRecord
from control_plane.adoption.suspension import Dependent
from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import ACTOR, Json, run
from control_plane.errors import InvalidInput
from control_plane.service import open_control_plane
from control_plane.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Adopt an existing database: inspect, plan, apply, keep in step, suspend for its migrations, uninstall.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The adoption's name.")]
Table = Annotated[str, typer.Argument(metavar="TABLE", help="A table of the adoption, or schema.table.")]
Tables = Annotated[list[str] | None, typer.Option("--table", help="Only this table; may be repeated.")]
Schema = Annotated[str, typer.Option(help="The schema of the legacy tables.")]
Chunk = Annotated[int, typer.Option(min=1, max=100_000, help="Rows per transaction.")]
_DSN = "postgresql://… of a role that owns the tables and has CREATEROLE and CREATE on the database."


@app.command()
def inspect(
    dsn: Annotated[str, typer.Argument(envvar="CP_ADOPT_DSN", show_envvar=True, help=_DSN)],
    schema: Schema = "public",
    table: Tables = None,
    exact: Annotated[bool, typer.Option("--exact", help="Count the rows of large tables too.")] = False,
    json: Json = False,
) -> None:
    """Look at tables: keys, columns, rows, missing indexes, secrets, and what stands in the way. Changes nothing.

    Exit 0: all of them can be adopted. 1: some cannot.
    """

    async def work(_: Settings) -> list[TableReport]:
        return await inspection.inspect(dsn, schema, table, exact=exact)

    reports = run(work, as_json=json)
    if json:
        print_json(reports)
    else:
        for report in reports:
            _print_report(report)
    if any(report.problems for report in reports):
        raise typer.Exit(1)


@app.command()
def plan(
    name: Name,
    dsn: Annotated[
        str | None,
        typer.Argument(envvar="CP_ADOPT_DSN", show_envvar=True, help=f"{_DSN} The recorded one when absent."),
    ] = None,
    schema: Schema = "public",
    table: Tables = None,
    into: Annotated[str | None, typer.Option(help="The schema for what is added; adoption when absent.")] = None,
    confirm_column: Annotated[
        list[str] | None, typer.Option(metavar="TABLE.COLUMN", help="Show a column that looks like a secret.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="TABLE.COLUMN[,COLUMN]", help="The key of a table; found when absent.")
    ] = None,
    reader: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="A role that may read what is added; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the plan is written (.sql or .json); NAME.adoption.sql when absent.")
    ] = None,
    json: Json = False,
) -> None:
    """Decide how tables are adopted, and write it down for review. Nothing happens in the legacy database.

    Repeat it to replace a plan, or, once it is applied, to add tables and confirm columns.
    """

    async def work(settings: Settings) -> Plan:
        request = PlanRequest(
            name=name,
            dsn=dsn,
            schema=schema,
            tables=table,
            into=into,
            confirm=confirm_column or (),
            keys=_keys(key or ()),
            readers=reader or (),
        )
        async with open_control_plane(settings) as plane:
            return await planning.plan(plane.databases, request, actor=ACTOR)

    planned = run(work, as_json=json)
    file = out or Path(f"{name}.adoption.sql")
    document = json_module.dumps(planned.document(), indent=2) if file.suffix == ".json" else planned.sql
    file.write_text(document + "\n", encoding="utf-8")
    if json:
        print_json({**planned.document(), "file": str(file)})
        return
    print_table(
        ("table", "view", "projection", "key", "columns", "withheld"),
        (
            (
                each.label,
                each.view,
                each.projection,
                [column.column for column in each.key],
                len(each.fields),
                each.withheld,
            )
            for each in planned.mappings
        ),
    )
    typer.echo(f"The plan is in {file}. When it is right: cp adopt apply {name}")


@app.command()
def apply(name: Name, chunk: Chunk = CHUNK, json: Json = False) -> None:
    """Make what was planned and fill the projections. Run it again to go on after an interruption."""

    async def work(settings: Settings) -> AdoptionRecord:
        async with open_control_plane(settings) as plane:
            return await applying.apply(
                plane.databases, name, actor=ACTOR, chunk=chunk, listener=None if json else _progress
            )

    _show(run(work, as_json=json), json)


@app.command()
def status(name: Annotated[str | None, typer.Argument(metavar="NAME")] = None, json: Json = False) -> None:
    """Show an adoption with its tables and entities, or list all of them."""

    async def work(settings: Settings) -> list[AdoptionRecord]:
        async with open_control_plane(settings) as plane:
            if name is not None:
                return [await records.get_adoption(plane.databases, name)]
            return await records.list_adoptions(plane.databases)

    found = run(work, as_json=json)
    if name is not None:
        _show(found[0], json)
    elif json:
        print_json(found)
    else:
        rows = ((each.name, each.state, each.schema, len(each.tables), len(each.entities)) for each in found)
        print_table(("name", "state", "schema", "tables", "entities"), rows)


@app.command()
def sync(name: Name, table: Tables = None, chunk: Chunk = CHUNK, json: Json = False) -> None:
    """Bring projections up to date: compares row by row and writes only what differs."""

    async def work(settings: Settings) -> list[Walked]:
        async with open_control_plane(settings) as plane:
            return await keeping.sync(plane.databases, name, table, chunk=chunk)

    walked = run(work, as_json=json)
    if json:
        print_json(walked)
    else:
        columns = ("table", "rows", "inserted", "updated", "deleted")
        print_table(columns, ([getattr(each, column) for column in columns] for each in walked))


@app.command()
def check(name: Name, table: Tables = None, json: Json = False) -> None:
    """Report how far projections lag behind their tables. Changes nothing.

    Exit 0: not at all. 1: some rows differ, or a table is not served; `sync` or `resume` puts it right.
    """

    async def work(settings: Settings) -> list[Drift]:
        async with open_control_plane(settings) as plane:
            return await keeping.check(plane.databases, name, table)

    drifts = run(work, as_json=json)
    if json:
        print_json(drifts)
    else:
        columns = ("table", "state", "projected", "missing", "stale", "extra", "last_sync_at")
        print_table(columns, ([getattr(each, column) for column in columns] for each in drifts))
        for each in drifts:
            for kind, keys in each.samples.items():
                typer.echo(f"{each.table} {kind}: {', '.join(json_module.dumps(key) for key in keys)}")
    if any(each.rows or each.state != "active" for each in drifts):
        raise typer.Exit(1)


@app.command()
def preflight(name: Name, table: Table, json: Json = False) -> None:
    """List what stands on a legacy table and would block a migration of it."""

    async def work(settings: Settings) -> list[Dependent]:
        async with open_control_plane(settings) as plane:
            return await suspension.preflight(plane.databases, name, table)

    _dependents(run(work, as_json=json), json)


@app.command()
def suspend(name: Name, table: Table, json: Json = False) -> None:
    """Drop our view of a table, so that it can be migrated. The projection stays, and can be read."""

    async def work(settings: Settings) -> list[Dependent]:
        async with open_control_plane(settings) as plane:
            return await suspension.suspend(plane.databases, name, table, actor=ACTOR)

    left = run(work, as_json=json)
    if json:
        print_json(left)
        return
    typer.echo(f"{table} is suspended. After its migration: cp adopt resume {name} {table}")
    if left:
        typer.echo("Still standing on it, and not ours to drop:")
        _dependents(left, json)


@app.command()
def resume(name: Name, table: Table, chunk: Chunk = CHUNK, json: Json = False) -> None:
    """Make the view of what the table is now, and bring its projection up to date."""

    async def work(settings: Settings) -> list[str]:
        async with open_control_plane(settings) as plane:
            return await suspension.resume(plane.databases, name, table, actor=ACTOR, chunk=chunk)

    withheld = run(work, as_json=json)
    if json:
        print_json({"table": table, "state": "active", "withheld": withheld})
    else:
        typer.echo(f"{table} is active" + (f"; withheld: {', '.join(withheld)}" if withheld else ""))


@app.command()
def uninstall(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Drop exactly what the adoption has added, and forget it. The legacy tables stay as they were."""
    if not yes:
        typer.confirm(f"Remove the adoption {name} with its views and projections?", abort=True, err=True)

    async def work(settings: Settings) -> None:
        async with open_control_plane(settings) as plane:
            await applying.uninstall(plane.databases, name, actor=ACTOR)

    run(work, as_json=json)
    if json:
        print_json({"name": name, "state": "removed"})
    else:
        typer.echo(f"{name} is removed.")


def _keys(given: Sequence[str]) -> dict[str, list[str]]:
    keys = {}
    for each in given:
        table, point, columns = each.partition(".")
        if not (table and point and all(columns.split(","))):
            raise InvalidInput("A key has the form TABLE.COLUMN or TABLE.COLUMN,COLUMN.")
        keys[table] = columns.split(",")
    return keys


def _progress(progress: Progress) -> None:
    typer.echo(f"{progress.table}: {progress.rows} rows{', complete' if progress.finished else ''}", err=True)


def _print_report(report: TableReport) -> None:
    rows = f"about {report.rows} rows" if report.rows_estimated else f"{report.rows} rows, counted"
    typer.echo(f"{report.table} ({rows}, {len(report.columns)} columns)")
    for candidate in report.key_candidates:
        verdict = candidate.origin if candidate.usable else f"{candidate.origin}, not usable: {candidate.reason}"
        typer.echo(f"  key {', '.join(candidate.columns)}: {verdict}")
    typer.echo("  columns: " + ", ".join(f"{name} {type_}" for name, type_ in report.columns.items()))
    if report.secret_columns:
        typer.echo(f"  left out until confirmed: {', '.join(report.secret_columns)}")
    for statement in report.missing_indexes:
        typer.echo(f"  missing index of a foreign key: {statement}")
    for note in report.notes:
        typer.echo(f"  note: {note}")
    for problem in report.problems:
        typer.echo(f"  cannot be adopted: {problem}")


def _dependents(found: list[Dependent], json: bool) -> None:
    if json:
        print_json(found)
    elif found:
        rows = (
            (each.name, each.kind, each.owner, _few(each.columns), "suspend" if each.suspended else "its owner")
            for each in found
        )
        print_table(("object", "kind", "owner", "columns", "dropped by"), rows)
    else:
        typer.echo("Nothing stands on it.")


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _show(record: AdoptionRecord, json: bool) -> None:
    if json:
        print_json(record)
        return
    typer.echo(f"{record.name}: {record.state}, schema {record.schema}, role {record.reader_role}")
    columns = ("table", "state", "view", "projection", "key", "withheld", "rows", "last_sync_at")
    print_table(columns, ([getattr(each, column) for column in columns] for each in record.tables))
    if record.entities:
        shown = ("entity", "table", "stage", "moving_to", "orm_role", "app_role")
        print_table(shown, ([getattr(each, column) for column in shown] for each in record.entities))
