"""The tenant API against a bare endpoint and a typical one, over the same rows of the same shared home."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select

from benchmarks.figures import Report, Series, interleaved, ratio
from benchmarks.load import Task, fetch, measure
from benchmarks.rivals import Rival
from benchmarks.stage import (
    dsn_with,
    environment,
    free_port,
    installation,
    onboard,
    running,
    server_settings,
    service,
    settings_for,
    temporary_home,
)
from control_plane.embedded import EmbeddedServer
from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_tenant_token
from control_plane.registry.models import Home, Tenant
from control_plane.settings import Settings

PATH = "/api/v1/users"
OURS, UNCACHED, BARE, TYPICAL = "control plane", "control plane, no token cache", "bare Starlette", "typical FastAPI"

# As cp_owner, whose policy sees all tenants. Whole seconds: then every serialiser writes the same instant.
_ROWS = """
SET ROLE cp_owner;
INSERT INTO "{schema}".tb_user (tenant_id, email, name, created_at)
SELECT t.id, format('user%s@example.com', n), format('User %s', n), timestamptz '2026-01-01Z' + n * interval '1 hour'
FROM unnest('{{{tenants}}}'::uuid[]) AS t (id), generate_series(1, {rows}) AS n;
ANALYZE "{schema}".tb_user;
RESET ROLE;
"""


@dataclass(frozen=True)
class Sizes:
    tenants: int = 200
    rows: int = 20  # per tenant
    rounds: int = 7
    seconds: float = 4.0
    warmup: float = 1.0
    connections: int = 16


QUICK = Sizes(tenants=3, rows=5, rounds=1, seconds=0.3, warmup=0.1, connections=2)


@dataclass(frozen=True)
class Scene:
    """What all contestants serve; `requests` has one whole HTTP request per tenant, the same for everybody."""

    rival: Rival
    requests: list[str]
    recorded: dict[str, Any]


def run(quick: bool) -> Report:
    """The rounds of all contestants; every one serves from the same server at the same time, but only one is asked."""
    sizes = QUICK if quick else Sizes()
    with temporary_home() as home, EmbeddedServer(home) as server:
        settings = settings_for(home)
        scene = asyncio.run(_set_the_scene(settings, sizes, server.admin_dsn))
        with _contestants(home, scene.rival) as ports:
            _require_equal_answers(ports, scene.requests)
            report = Report("request_path", quick, scene.recorded)
            _measure(report, sizes, ports, scene.requests)
    return report


async def _set_the_scene(settings: Settings, sizes: Sizes, dsn: str) -> Scene:
    async with installation(settings) as (plane, cluster):
        await onboard(plane, "shared", sizes.tenants)
        async with plane.databases.registry() as session:
            tenants = list(await session.scalars(select(Tenant.id).order_by(Tenant.slug)))
            home = (await session.scalars(select(Home))).one()
        async with plane.databases.admin(cluster, home.database) as connection:
            listed = ",".join(map(str, tenants))
            await connection.execute(_ROWS.format(schema=home.schema_name, tenants=listed, rows=sizes.rows))
        password = plane.databases.box.open(home.password)

    issuer, user_id = development_issuer(settings), uuid4()
    assert settings.signing_key is not None
    rival = Rival(
        dsn=dsn_with(dsn, database=home.database, user=home.role_name, password=password),
        schema_name=home.schema_name,
        pool_size=settings.shared_pool_size,
        signing_key=settings.signing_key.get_secret_value(),
        issuer=issuer.issuer,
        audience=issuer.tenant_audience,
        user_id=str(user_id),
    )
    requests = [_request(tenant, mint_tenant_token(issuer, tenant, user_id, ttl=86400)) for tenant in tenants]
    recorded = {
        **asdict(sizes),
        "workers": 1,
        "pool_size": settings.shared_pool_size,
        "loop": "uvloop",
        "http": "httptools",
        "path": PATH,
        **await server_settings(dsn),
    }
    return Scene(rival, requests, recorded)


def _request(tenant_id: UUID, token: str) -> str:
    return (
        f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
        f"X-Tenant-Id: {tenant_id}\r\nAuthorization: Bearer {token}\r\n\r\n"
    )


@contextmanager
def _contestants(home: Path, rival: Rival) -> Iterator[dict[str, int]]:
    """All services, one worker each; their ports."""
    with ExitStack() as stack:
        yield {
            OURS: stack.enter_context(service(home)),
            UNCACHED: stack.enter_context(service(home, CP_TOKEN_CACHE_SIZE="0")),
            BARE: stack.enter_context(_rival("benchmarks.rivals.bare:create_app", home, rival, "--factory")),
            TYPICAL: stack.enter_context(_rival("benchmarks.rivals.typical:app", home, rival)),
        }


@contextmanager
def _rival(app: str, home: Path, rival: Rival, *options: str) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, *options, "--port", str(port), "--workers", "1"]
    command += ["--loop", "uvloop", "--http", "httptools", "--ws", "none", "--no-access-log", "--no-server-header"]
    variables = environment(home, RIVAL=rival.model_dump_json())
    with running([*command, "--log-level", "warning"], f"http://127.0.0.1:{port}/", variables):
        yield port


def _require_equal_answers(ports: dict[str, int], requests: list[str]) -> None:
    """Byte for byte, but for the typical service: it writes the same value in another order of keys."""
    for request in requests:
        bodies = {name: fetch(port, request) for name, port in ports.items()}
        expected = bodies.pop(OURS)
        if not json.loads(expected):
            raise AssertionError("there are no rows")
        for name, body in bodies.items():
            same = body == expected if name != TYPICAL else _value(body) == _value(expected)
            if not same:
                raise AssertionError(f"{name} answers {body!r}, not {expected!r}")


def _value(body: bytes) -> Any:
    """The documents with instants in place of their texts: Z and +00:00 are one."""
    return [{**each, "created_at": datetime.fromisoformat(each["created_at"])} for each in json.loads(body)]


def _measure(report: Report, sizes: Sizes, ports: dict[str, int], requests: list[str]) -> None:
    throughput = {name: Series(name, "req/s") for name in ports}
    p50 = {name: Series(f"{name}, p50", "ms") for name in ports}
    p99 = {name: Series(f"{name}, p99", "ms") for name in ports}
    for order in interleaved(list(ports), sizes.rounds):
        for name in order:
            task = Task(
                port=ports[name],
                requests=requests,
                connections=sizes.connections,
                warmup=sizes.warmup,
                seconds=sizes.seconds,
            )
            measured = measure(task)
            throughput[name].values.append(measured.per_second)
            p50[name].values.append(measured.p50)
            p99[name].values.append(measured.p99)
    report.figures = [*throughput.values(), *p50.values(), *p99.values()]
    report.ratios = [
        ratio("throughput against the bare endpoint", throughput[OURS], throughput[BARE], "≥ 0.7"),
        ratio("throughput against the typical endpoint", throughput[OURS], throughput[TYPICAL], "≥ 4"),
        ratio("no token cache, against the bare endpoint", throughput[UNCACHED], throughput[BARE]),
        ratio("no token cache, against the typical endpoint", throughput[UNCACHED], throughput[TYPICAL]),
    ]
