"""`cp dev`: everything on this machine in one process, with demo tenants to try it on."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import httpx
import typer
from rich.console import Console

from control_plane.cli.run import ACTOR, run
from control_plane.cli.serve import Host, Port, address, listen, log_to_stderr, serve_until, stop_on_signals
from control_plane.errors import ControlPlaneError, TenantNotFound
from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_platform_token, mint_tenant_token
from control_plane.operations.engine import NewTenant
from control_plane.service import ControlPlane, initialise, open_control_plane
from control_plane.settings import Settings
from control_plane.tenants.records import TenantRecord, get_tenant

TOKEN_TTL = 7 * 86_400  # seconds
WAIT = 60.0  # seconds for a demo tenant

Api = httpx.AsyncClient
DatabasePort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Open the database on 127.0.0.1 too; no TCP port when absent."),
]


@dataclass(frozen=True)
class Demo:
    slug: str
    name: str
    isolation: str
    user: UUID
    people: tuple[tuple[str, str], ...]  # email, name
    projects: tuple[str, ...]


DEMOS = (
    Demo(
        "acme", "Acme Inc.", "shared", UUID("a0000000-0000-4000-8000-000000000001"),
        (("ada@acme.test", "Ada Lovelace"), ("alan@acme.test", "Alan Turing")), ("Analytical Engine", "Enigma"),
    ),
    Demo(
        "globex", "Globex GmbH", "schema", UUID("a0000000-0000-4000-8000-000000000002"),
        (("grace@globex.test", "Grace Hopper"), ("kurt@globex.test", "Kurt Goedel")), ("Compiler", "Incompleteness"),
    ),
    Demo(
        "initech", "Initech Ltd.", "database", UUID("a0000000-0000-4000-8000-000000000003"),
        (("edgar@initech.test", "Edgar Codd"), ("jim@initech.test", "Jim Gray")), ("Relations", "Transactions"),
    ),
)  # fmt: skip


def dev(host: Host = None, port: Port = None, database_port: DatabasePort = None) -> None:
    """Start PostgreSQL, API and worker here, with three demo tenants; Ctrl-C stops everything, the data stays."""
    from control_plane.api.app import create_app  # with the web framework, which no other command needs

    async def work(settings: Settings) -> None:
        log_to_stderr(settings)
        listener = listen(settings)
        with stop_on_signals() as stop:
            async with open_control_plane(settings, upgrade=True) as plane:
                await initialise(plane, actor=ACTOR)
                await plane.require_safe_posture()
                app = create_app(plane)
                tokens = await _demo_tenants(plane, httpx.ASGITransport(app=app))

                async def ready() -> None:
                    _introduce(address(listener), tokens, _platform_token(plane.settings))

                await serve_until(stop, plane, app, listener, worker=True, ready=ready)

    run(work, host=host, port=port, database_port=database_port)


async def _demo_tenants(plane: ControlPlane, transport: httpx.ASGITransport) -> dict[str, str]:
    """A bearer token per demo tenant; tenants and rows are made where they are missing."""
    tokens = {}
    async with Api(transport=transport, base_url="http://dev", timeout=WAIT) as api:
        for demo in DEMOS:
            tenant = await _tenant(plane, demo)
            if tenant is None:
                continue  # somebody deleted or suspended it, and meant it
            token = mint_tenant_token(
                development_issuer(plane.settings), tenant.id, str(demo.user), roles=["admin"], ttl=TOKEN_TTL
            )
            api.headers["Authorization"] = f"Bearer {token}"
            await _rows(api, demo)
            tokens[demo.slug] = token
    return tokens


async def _tenant(plane: ControlPlane, demo: Demo) -> TenantRecord | None:
    try:
        tenant = await get_tenant(plane.databases, demo.slug)
    except TenantNotFound:
        new = NewTenant(slug=demo.slug, name=demo.name, isolation=demo.isolation, plan="demo")
        tenant, _ = await plane.operations.create_tenant(new, actor=ACTOR, wait=WAIT)
    return tenant if tenant.status == "active" else None


async def _rows(api: Api, demo: Demo) -> None:
    if (await api.get("/api/v1/projects")).raise_for_status().json():
        return
    for email, name in demo.people:
        await _call(api, "create_user", {"email": email, "name": name})
    for name in demo.projects:
        await _call(api, "create_project", {"name": name})


async def _call(api: Api, function: str, body: dict[str, str]) -> None:
    answer = await api.post(f"/api/v1/rpc/{function}", json=body)
    if answer.is_error:
        raise ControlPlaneError(f"The demo data could not be created: {function} answered {answer.text}")


def _platform_token(settings: Settings) -> str:
    return mint_platform_token(development_issuer(settings), "dev", scopes=["*"], ttl=TOKEN_TTL)


def _introduce(url: str, tokens: dict[str, str], platform_token: str) -> None:
    console = Console(highlight=False)
    console.print("\n[bold]The control plane is up.[/bold]\n")
    console.print(f"  API             {url}")
    console.print(f"  Documentation   {url}/docs\n")
    modes = {demo.slug: demo.isolation for demo in DEMOS}
    for slug, token in tokens.items():
        console.print(f"[bold]Token of {slug}[/bold] ({modes[slug]})")
        print(token)
    console.print("\n[bold]Try[/bold]")
    # Plain print: a line that rich wraps cannot be pasted.
    for line in _curl_lines(url, tokens, platform_token):
        print(line)
    console.print("\nCtrl-C stops everything; the data stays.")


def _curl_lines(url: str, tokens: dict[str, str], platform_token: str) -> list[str]:
    lines = [_curl(f"{url}/tenants", platform_token)]
    if tokens:
        reader, writer = next(iter(tokens.values())), list(tokens.values())[-1]
        lines.append(_curl(f"{url}/api/v1/projects", reader))
        lines.append(_curl(f"{url}/api/v1/rpc/create_project", writer, json='{"name": "My first project"}'))
    return lines


def _curl(url: str, token: str, json: str | None = None) -> str:
    words = ["curl", "-sS", "-H", f"Authorization: Bearer {token}"]
    if json is not None:
        words += ["-H", "Content-Type: application/json", "-d", json]
    return shlex.join([*words, url])
