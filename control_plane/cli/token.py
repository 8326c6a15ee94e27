"""`cp token`: bearer tokens of the development issuer, and taking back anybody's."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer

from control_plane.cli.durations import parse_duration
from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import ACTOR, Json, run
from control_plane.errors import InvalidInput
from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_platform_token, mint_tenant_token
from control_plane.service import complete, open_control_plane
from control_plane.settings import Settings
from control_plane.tenants import revocations
from control_plane.tenants.records import get_tenant
from control_plane.tenants.revocations import RevocationRecord, Target

app = typer.Typer(help="Bearer tokens: of the development issuer, and taken back.")

COLUMNS = ("id", "kind", "tenant_id", "subject", "token_id", "issued_before", "expires_at")
_MOMENTS = ["%Y-%m-%dT%H:%M:%S%z"]


@app.callback(invoke_without_command=True)
def token(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(metavar="SLUG", help="A token for this tenant's data.")] = None,
    platform: Annotated[bool, typer.Option("--platform", help="A token for the platform API.")] = False,
    subject: Annotated[
        str | None, typer.Option(help="The user's id (a uuid; a new one when absent), or a name with --platform.")
    ] = None,
    role: Annotated[list[str] | None, typer.Option(help="A role of the user; may be repeated.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="May be repeated; all scopes when absent.")] = None,
    ttl: Annotated[str, typer.Option(metavar="90s|15m|1h|7d", help="How long it is valid.")] = "1h",
) -> None:
    """Print a bearer token and nothing else; or take tokens back."""
    if context.invoked_subcommand is not None:
        return

    async def work(settings: Settings) -> str:
        seconds = parse_duration(ttl)
        if platform == (tenant is not None):
            raise InvalidInput("Say whose token: --tenant SLUG or --platform.")
        issuer = development_issuer(complete(settings))
        if tenant is None:
            return mint_platform_token(issuer, subject or "cli", scope or ["*"], seconds)
        async with open_control_plane(settings) as plane:
            record = await get_tenant(plane.databases, tenant)
        return mint_tenant_token(issuer, record.id, subject, role or [], seconds)

    typer.echo(run(work))


@app.command()
def revoke(
    id: Annotated[str | None, typer.Option("--id", metavar="JTI", help="One token, by its claim 'jti'.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="SLUG", help="All tokens of this tenant so far.")] = None,
    user: Annotated[UUID | None, typer.Option(metavar="USER", help="With --tenant: those of one user.")] = None,
    subject: Annotated[str | None, typer.Option(help="All platform tokens of this subject so far.")] = None,
    before: Annotated[
        datetime | None,
        typer.Option(formats=_MOMENTS, metavar="TIME", help="Only tokens issued before; now when absent."),
    ] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(formats=_MOMENTS, metavar="TIME", help="With --id: the token's claim 'exp'."),
    ] = None,
    json: Json = False,
) -> None:
    """Refuse tokens that are still valid. This cannot be undone: new tokens are good."""

    async def work(settings: Settings) -> RevocationRecord:
        target = _target(id, tenant, user, subject)
        async with open_control_plane(settings) as plane:
            return await revocations.revoke(
                plane.databases, target, issued_before=before, expires_at=expires, actor=ACTOR
            )

    record = run(work, as_json=json)
    if json:
        print_json(record)
    else:
        _print([record])


@app.command("revocations")
def list_(json: Json = False) -> None:
    """List what was taken back, the newest first."""

    async def work(settings: Settings) -> list[RevocationRecord]:
        async with open_control_plane(settings) as plane:
            page = await revocations.list_revocations(plane.databases, limit=1000)
            found = list(page.items)
            while page.next_cursor is not None:
                page = await revocations.list_revocations(plane.databases, limit=1000, cursor=page.next_cursor)
                found += page.items
            return found

    found = run(work, as_json=json)
    if json:
        print_json(found)
    else:
        _print(found)


def _target(id: str | None, tenant: str | None, user: UUID | None, subject: str | None) -> Target:
    if sum(given is not None for given in (id, tenant, subject)) != 1 or (user is not None and tenant is None):
        raise InvalidInput("Say which tokens: --id JTI, --tenant SLUG, --tenant SLUG --user USER, or --subject NAME.")
    if id is not None:
        return Target("token", token_id=id)
    if subject is not None:
        return Target("subject", subject=subject)
    return Target("tenant" if user is None else "user", tenant=tenant, user_id=user)


def _print(found: list[RevocationRecord]) -> None:
    print_table(COLUMNS, ([getattr(record, column) for column in COLUMNS] for record in found))
