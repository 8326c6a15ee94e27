"""`cp token`: bearer tokens of the development issuer."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from control_plane.cli.run import run
from control_plane.errors import InvalidInput
from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_platform_token, mint_tenant_token
from control_plane.service import complete, open_control_plane
from control_plane.settings import Settings
from control_plane.tenants.records import get_tenant

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


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
        seconds = parse_ttl(ttl)
        if platform == (tenant is not None):
            raise InvalidInput("Say whose token: --tenant SLUG or --platform.")
        issuer = development_issuer(complete(settings))
        if tenant is None:
            return mint_platform_token(issuer, subject or "cli", scope or ["*"], seconds)
        async with open_control_plane(settings) as plane:
            record = await get_tenant(plane.databases, tenant)
        return mint_tenant_token(issuer, record.id, subject, role or [], seconds)

    typer.echo(run(work))


def parse_ttl(text: str) -> int:
    """Seconds of a duration such as 90s, 15m, 1h or 7d."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise InvalidInput(f"'{text}' is no duration.", hint="A number and a unit: 90s, 15m, 1h, 7d.")
    return int(match[1]) * _UNITS[match[2]]
