"""`cp token`: bearer tokens of the development issuer."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.durations import parse_duration
from control_plane.cli.run import run
from control_plane.errors import InvalidInput
from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_platform_token, mint_tenant_token
from control_plane.service import complete, open_control_plane
from control_plane.settings import Settings
from control_plane.tenants.records import get_tenant


def token(
    tenant: Annotated[str | None, typer.Option(metavar="SLUG", help="A token for this tenant's data.")] = None,
    platform: Annotated[bool, typer.Option("--platform", help="A token for the platform API.")] = False,
    subject: Annotated[
        str | None, typer.Option(help="The user's id (a uuid; a new one when absent), or a name with --platform.")
    ] = None,
    role: Annotated[list[str] | None, typer.Option(help="A role of the user; may be repeated.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="May be repeated; all scopes when absent.")] = None,
    ttl: Annotated[str, typer.Option(metavar="90s|15m|1h|7d", help="How long it is valid.")] = "1h",
) -> None:
    """Print a bearer token and nothing else."""

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
