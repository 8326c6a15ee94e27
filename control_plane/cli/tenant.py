"""`cp tenant`: the life of a tenant from the terminal."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.cli import member
from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import ACTOR, Json, run
from control_plane.errors import InvalidInput
from control_plane.operations.engine import NewTenant
from control_plane.operations.records import OperationRecord
from control_plane.service import open_control_plane
from control_plane.settings import Settings
from control_plane.tenants import changes, records
from control_plane.tenants.export import Export, export_tenant
from control_plane.tenants.records import TenantRecord

app = typer.Typer(no_args_is_help=True, help="Onboard, list, suspend, resume, export and delete tenants.")
app.add_typer(member.app, name="member")

COLUMNS = ("slug", "name", "isolation", "status", "pattern_version", "cluster", "plan", "id")
WAIT = 300.0  # seconds; a terminal is patient, and a crash resumes anyway


class IsolationName(StrEnum):
    shared = "shared"
    schema = "schema"
    database = "database"


Ref = Annotated[str, typer.Argument(metavar="TENANT", help="Slug or id.")]


@app.command()
def create(
    slug: Annotated[str, typer.Argument(help="2 to 40 characters: a-z, 0-9, single hyphens; never changes.")],
    isolation: Annotated[IsolationName, typer.Option(help="How its data is kept apart.")] = IsolationName.schema,
    name: Annotated[str | None, typer.Option(help="For people; the slug when absent.")] = None,
    plan: Annotated[str | None, typer.Option()] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Chosen by capacity when absent.")] = None,
    template: Annotated[str | None, typer.Option()] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Pattern version; the current one when absent.")] = None,
    json: Json = False,
) -> None:
    """Onboard a tenant."""

    async def work(settings: Settings) -> TenantRecord:
        new = NewTenant(
            slug=slug,
            name=name or slug,
            isolation=isolation.value,
            plan=plan,
            labels=_labels(label or []),
            cluster=cluster,
            template=template,
            version=version,
        )
        async with open_control_plane(settings) as plane:
            tenant, operation = await plane.operations.create_tenant(new, actor=ACTOR, wait=WAIT)
            _say_if_unfinished(operation)
            return tenant

    _show(run(work, as_json=json), json)


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="Only tenants with this status.")] = None,
    isolation: Annotated[IsolationName | None, typer.Option(help="Only tenants with this isolation.")] = None,
    version: Annotated[int | None, typer.Option(help="Only tenants at this pattern version.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Only tenants on this cluster.")] = None,
    json: Json = False,
) -> None:
    """List tenants."""

    async def work(settings: Settings) -> list[TenantRecord]:
        filters: dict[str, Any] = {
            "status": status,
            "isolation": isolation.value if isolation else None,
            "version": version,
            "cluster": cluster,
        }
        async with open_control_plane(settings) as plane:
            page = await records.list_tenants(plane.databases, limit=1000, **filters)
            tenants = list(page.items)
            while page.next_cursor is not None:
                page = await records.list_tenants(plane.databases, limit=1000, cursor=page.next_cursor, **filters)
                tenants += page.items
            return tenants

    tenants = run(work, as_json=json)
    if json:
        print_json(tenants)
    else:
        print_table(COLUMNS, ([getattr(tenant, column) for column in COLUMNS] for tenant in tenants))


@app.command()
def show(tenant: Ref, json: Json = False) -> None:
    """Show one tenant."""

    async def work(settings: Settings) -> TenantRecord:
        async with open_control_plane(settings) as plane:
            return await records.get_tenant(plane.databases, tenant)

    _show(run(work, as_json=json), json)


@app.command()
def suspend(tenant: Ref, json: Json = False) -> None:
    """Suspend a tenant: its requests are refused at once."""

    async def work(settings: Settings) -> TenantRecord:
        async with open_control_plane(settings) as plane:
            return await changes.suspend_tenant(plane.databases, tenant, actor=ACTOR)

    _show(run(work, as_json=json), json)


@app.command()
def resume(tenant: Ref, json: Json = False) -> None:
    """Resume a suspended tenant."""

    async def work(settings: Settings) -> TenantRecord:
        async with open_control_plane(settings) as plane:
            return await changes.resume_tenant(plane.databases, tenant, actor=ACTOR)

    _show(run(work, as_json=json), json)


@app.command()
def export(
    tenant: Ref,
    into: Annotated[Path, typer.Option(help="The zip file to write; must not exist.")],
    json: Json = False,
) -> None:
    """Write all rows of a tenant to a file, as of one moment. Suspend it first if nothing may change after that."""

    def say(table: str, rows: int) -> None:
        if not json:
            typer.echo(f"{table}: {rows} rows", err=True)

    async def work(settings: Settings) -> Export:
        async with open_control_plane(settings) as plane:
            return await export_tenant(plane.databases, tenant, into, actor=ACTOR, progress=say)

    written = run(work, as_json=json)
    if json:
        print_json(written)
    else:
        typer.echo(f"{sum(written.rows.values())} rows of {written.tenant} in {written.path}")


@app.command()
def delete(
    tenant: Ref,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete a tenant and all of its data."""
    if not yes:
        typer.confirm(f"Delete {tenant} and all of its data?", abort=True, err=True)

    async def work(settings: Settings) -> TenantRecord:
        async with open_control_plane(settings) as plane:
            record, operation = await plane.operations.delete_tenant(tenant, actor=ACTOR, wait=WAIT)
            _say_if_unfinished(operation)
            return record

    _show(run(work, as_json=json), json)


def _labels(pairs: list[str]) -> dict[str, str]:
    labels = dict(pair.partition("=")[::2] for pair in pairs)
    if any("=" not in pair for pair in pairs) or "" in labels:
        raise InvalidInput("A label has the form KEY=VALUE.")
    return labels


def _say_if_unfinished(operation: OperationRecord) -> None:
    if operation.status != "succeeded":
        typer.echo(f"The work goes on in the background: operation {operation.id}, {operation.percent} %", err=True)


def _show(tenant: TenantRecord, json: bool) -> None:
    if json:
        print_json(tenant)
    else:
        print_table(("", ""), ((field.name, getattr(tenant, field.name)) for field in dataclasses.fields(tenant)))
