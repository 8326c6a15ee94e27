"""`cp cluster`: the PostgreSQL servers that tenants live on."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import ACTOR, Json, run
from control_plane.cli.tenant import IsolationName
from control_plane.isolation.cluster import Finding
from control_plane.service import open_control_plane
from control_plane.settings import Settings
from control_plane.tenants import clusters
from control_plane.tenants.clusters import ClusterRecord

app = typer.Typer(no_args_is_help=True, help="Register, list, check, change and drain clusters.")

COLUMNS = ("name", "status", "region", "isolations", "tenants", "capacity", "pooler", "id")

Name = Annotated[str, typer.Argument(help="The cluster's name.")]


@app.command()
def add(
    name: Name,
    dsn: Annotated[
        str,
        typer.Argument(
            envvar="CP_CLUSTER_DSN",
            show_envvar=True,
            help="postgresql://… of an administrative role with CREATEROLE and CREATEDB, no superuser.",
        ),
    ],
    region: Annotated[str | None, typer.Option()] = None,
    isolation: Annotated[
        list[IsolationName] | None, typer.Option(help="What may be placed here; repeat it. All when absent.")
    ] = None,
    capacity: Annotated[int | None, typer.Option(min=1, help="Tenants; unlimited when absent.")] = None,
    pooler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="postgresql://host:6432, which requests go through.")
    ] = None,
    json: Json = False,
) -> None:
    """Check a server's posture, prepare it and register it."""

    async def work(settings: Settings) -> ClusterRecord:
        async with open_control_plane(settings) as plane:
            return await clusters.add_cluster(
                plane.databases,
                name,
                dsn,
                region=region,
                isolations=[each.value for each in isolation or IsolationName],
                capacity=capacity,
                pooler=pooler,
                actor=ACTOR,
            )

    _show(run(work, as_json=json), json)


@app.command("list")
def list_(json: Json = False) -> None:
    """List clusters."""

    async def work(settings: Settings) -> list[ClusterRecord]:
        async with open_control_plane(settings) as plane:
            return await clusters.list_clusters(plane.databases)

    records = run(work, as_json=json)
    if json:
        print_json(records)
    else:
        _table(records)


@app.command()
def check(name: Name, json: Json = False) -> None:
    """Check that a cluster can isolate tenants; exit 1 when it cannot."""

    async def work(settings: Settings) -> list[Finding]:
        async with open_control_plane(settings) as plane:
            return await clusters.check(plane.databases, name)

    findings = run(work, as_json=json)
    if json:
        print_json(findings)
    elif findings:
        print_table(("code", "object", "problem", "fix"), ((f.code, f.object, f.problem, f.fix) for f in findings))
    else:
        typer.echo(f"{name} can isolate tenants.")
    if findings:
        raise typer.Exit(1)


@app.command("set-pooler")
def set_pooler(
    name: Name,
    address: Annotated[str | None, typer.Argument(help="postgresql://host:6432, without role and database.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Let requests go to the server itself.")] = False,
    json: Json = False,
) -> None:
    """Let requests go through a pooler such as PgBouncer in transaction mode."""
    if (address is None) != none:
        raise typer.BadParameter("Give an address, or --none.", param_hint="ADDRESS")

    async def work(settings: Settings) -> ClusterRecord:
        async with open_control_plane(settings) as plane:
            return await clusters.set_pooler(plane.databases, name, address, actor=ACTOR)

    _show(run(work, as_json=json), json)


@app.command()
def drain(name: Name, json: Json = False) -> None:
    """Place no further tenants on a cluster."""

    async def work(settings: Settings) -> ClusterRecord:
        async with open_control_plane(settings) as plane:
            return await clusters.drain_cluster(plane.databases, name, actor=ACTOR)

    _show(run(work, as_json=json), json)


def _show(record: ClusterRecord, json: bool) -> None:
    if json:
        print_json(record)
    else:
        _table([record])


def _table(records: list[ClusterRecord]) -> None:
    print_table(COLUMNS, ([getattr(record, column) for column in COLUMNS] for record in records))
