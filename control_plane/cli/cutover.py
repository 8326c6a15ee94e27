"""`cp cutover`: an entity leaves its ORM in stages, each of which can be taken back."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.adoption import cutover
from control_plane.adoption.cutover import Move, NewEntity, Outcome
from control_plane.adoption.records import EntityRecord
from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import ACTOR, Json, run
from control_plane.errors import InvalidInput
from control_plane.service import open_control_plane
from control_plane.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Move an entity of an adopted database from its ORM to views and functions: "
    "orm → shadow → views → functions → done. `cp adopt` comes first.",
)

Adoption = Annotated[str, typer.Argument(metavar="ADOPTION", help="The adoption's name: cp adopt status.")]
Entity = Annotated[str, typer.Argument(metavar="ENTITY", help="The entity, such as customer.")]


@app.command()
def start(
    adoption: Adoption,
    entity: Entity,
    table: Annotated[str, typer.Option(help="Its adopted table.")],
    orm_role: Annotated[str, typer.Option(metavar="ROLE", help="The role that the ORM connects as.")],
    app_role: Annotated[
        str | None, typer.Option(metavar="ROLE", help="The role that calls the functions; the ORM's when absent.")
    ] = None,
    orm_query: Annotated[
        str | None, typer.Option(metavar="SELECT", help="What the ORM reads; the table itself when absent.")
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="COLUMN=KEY", help="A column of that query stands for a key of the document."),
    ] = None,
    json: Json = False,
) -> None:
    """Stage shadow: make fn_create_…, fn_update_… and fn_delete_… and compare what the ORM reads with the view."""

    async def work(settings: Settings) -> Outcome:
        new = NewEntity(entity, table, orm_role, app_role, orm_query, _pairs(map_ or []))
        async with open_control_plane(settings) as plane:
            return await cutover.start(plane.databases, adoption, new, actor=ACTOR)

    _show(run(work, as_json=json), json)


@app.command()
def status(adoption: Adoption, entity: Entity, json: Json = False) -> None:
    """Show the stage of an entity and how it got there."""

    async def work(settings: Settings) -> tuple[EntityRecord, list[Move]]:
        async with open_control_plane(settings) as plane:
            return await cutover.status(plane.databases, adoption, entity)

    record, moves = run(work, as_json=json)
    if json:
        print_json({"entity": record, "moves": moves})
        return
    _line(record)
    print_table(
        ("at", "actor", "from", "to"), ((each.at, each.actor, each.from_stage, each.to_stage) for each in moves)
    )


@app.command()
def check(adoption: Adoption, entity: Entity, json: Json = False) -> None:
    """Compare what the ORM reads with the view, row by row, and the projection with the table. Changes nothing.

    Exit 0: they are the same. 1: they differ, and it says in which fields and for which keys.
    """

    async def work(settings: Settings) -> Outcome:
        async with open_control_plane(settings) as plane:
            return await cutover.check(plane.databases, adoption, entity)

    outcome = run(work, as_json=json)
    _show(outcome, json)
    if outcome.shadow is None or not outcome.shadow.equal or outcome.drift is None or outcome.drift.rows:
        raise typer.Exit(1)


@app.command()
def advance(adoption: Adoption, entity: Entity, json: Json = False) -> None:
    """Go to the next stage, if the view shows what the ORM reads.

    views: the application may call the functions. functions: the ORM's role cannot write any more. done: no way back.
    """

    async def work(settings: Settings) -> Outcome:
        async with open_control_plane(settings) as plane:
            return await cutover.advance(plane.databases, adoption, entity, actor=ACTOR)

    _show(run(work, as_json=json), json)


@app.command()
def back(adoption: Adoption, entity: Entity, json: Json = False) -> None:
    """Go to the stage before, with the privileges that were there then; or undo a move that broke off."""

    async def work(settings: Settings) -> Outcome:
        async with open_control_plane(settings) as plane:
            return await cutover.back(plane.databases, adoption, entity, actor=ACTOR)

    _show(run(work, as_json=json), json)


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = dict(each.partition("=")[::2] for each in given)
    if any("=" not in each for each in given) or not all(name and value for name, value in pairs.items()):
        raise InvalidInput("A mapping has the form COLUMN=KEY.")
    return pairs


def _show(outcome: Outcome, json: bool) -> None:
    if json:
        print_json(outcome)
        return
    _line(outcome.entity)
    if (shadow := outcome.shadow) is not None:
        typer.echo(f"The ORM reads {shadow.orm_rows} rows, the view shows {shadow.view_rows}.")
        if shadow.equal:
            typer.echo("They are the same.")
        else:
            print_table(
                ("field", "keys", "samples"),
                ((each["field"], each["keys"], each["samples"]) for each in shadow.differences()),
            )
    if (drift := outcome.drift) is not None:
        typer.echo(
            f"The projection lags behind by {drift.rows} rows."
            if drift.rows
            else f"The projection is up to date with {drift.projected} rows."
        )
    for note in outcome.notes:
        typer.echo(f"note: {note}")


def _line(record: EntityRecord) -> None:
    moving = f" (a move to {record.moving_to} broke off)" if record.moving_to else ""
    typer.echo(f"{record.entity} ({record.table}): {record.stage}{moving}")
