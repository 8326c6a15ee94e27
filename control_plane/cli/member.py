"""`cp tenant member`: who is let in to a tenant."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import ACTOR, Json, run
from control_plane.service import open_control_plane
from control_plane.settings import Settings
from control_plane.tenants import members
from control_plane.tenants.members import Member, Membership, Policy

app = typer.Typer(no_args_is_help=True, help="Who is let in: whom a token names, or only those on the tenant's list.")

Ref = Annotated[str, typer.Argument(metavar="TENANT", help="Slug or id.")]
User = Annotated[UUID, typer.Argument(metavar="USER", help="The uuid that the user's tokens carry.")]


@app.command("list")
def list_(tenant: Ref, json: Json = False) -> None:
    """Show the policy and the members."""

    async def work(settings: Settings) -> Membership:
        async with open_control_plane(settings) as plane:
            return await members.get_membership(plane.databases, tenant)

    _show(run(work, as_json=json), json)


@app.command()
def policy(tenant: Ref, policy: Annotated[Policy, typer.Argument()], json: Json = False) -> None:
    """Let in whom a token names (`token`), or only those on the list (`listed`)."""

    async def work(settings: Settings) -> Membership:
        async with open_control_plane(settings) as plane:
            return await members.set_policy(plane.databases, tenant, policy, actor=ACTOR)

    _show(run(work, as_json=json), json)


@app.command()
def add(
    tenant: Ref,
    user: User,
    role: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    json: Json = False,
) -> None:
    """Add a member, or replace the roles of one."""

    async def work(settings: Settings) -> Member:
        async with open_control_plane(settings) as plane:
            return await members.put_member(plane.databases, tenant, user, role or [], actor=ACTOR)

    member = run(work, as_json=json)
    if json:
        print_json(member)
    else:
        _print([member])


@app.command()
def remove(tenant: Ref, user: User, json: Json = False) -> None:
    """Take a member off the list: refused from the next transaction on, if the policy is `listed`."""

    async def work(settings: Settings) -> None:
        async with open_control_plane(settings) as plane:
            await members.remove_member(plane.databases, tenant, user, actor=ACTOR)

    run(work, as_json=json)


def _show(membership: Membership, json: bool) -> None:
    if json:
        print_json(membership)
        return
    typer.echo(f"policy: {membership.policy}")
    _print(membership.members)


def _print(listed: list[Member]) -> None:
    print_table(("user_id", "roles"), ([member.user_id, ", ".join(member.roles)] for member in listed))
