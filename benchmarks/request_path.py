"""The tenant API against a bare endpoint and a typical one, over the same rows of the same shared home."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from benchmarks.contestants import BARE, OURS, TYPICAL, UNCACHED, Contestant, Load, compete, started
from benchmarks.delay import delayed
from benchmarks.figures import Ratio, Report, Series, ratio
from benchmarks.load import ask_all, fetch
from benchmarks.scene import PATH, Scene, crowd, schema_requests, shared_scene
from benchmarks.stage import Process, dsn_with, installation, server_settings, service, settings_for, temporary_home
from control_plane.embedded import EmbeddedServer
from control_plane.embedded.binaries import binary
from control_plane.pools.connect import connect
from control_plane.registry.models import Cluster
from control_plane.service import ControlPlane
from control_plane.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    tenants: int = 200
    rows: int = 20  # per tenant
    rounds: int = 7
    seconds: float = 4.0
    warmup: float = 1.0
    connections: int = 16
    latency: float = 1.0  # milliseconds more for a round trip to the database
    proxy_connections: int = 32
    few: int = 1_000  # tenants, with a token each
    many: int = 50_000
    many_rows: int = 5
    budget: int = 40  # connections for `tenants` schema homes


QUICK = Sizes(
    tenants=3, rows=5, rounds=1, seconds=0.3, warmup=0.1, connections=2, proxy_connections=2,
    few=4, many=8, many_rows=2, budget=2,
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One installation on one server; the parts of the benchmark come after each other on it."""

    home: Path
    settings: Settings
    dsn: str
    sizes: Sizes
    report: Report

    def load(self, **changes: Any) -> Load:
        sizes = self.sizes
        return replace(Load(sizes.rounds, sizes.seconds, sizes.warmup, sizes.connections), **changes)

    def prepare(self, work: Callable[[ControlPlane, Cluster], Awaitable[T]]) -> T:
        async def run() -> T:
            async with installation(self.settings) as (plane, cluster):
                return await work(plane, cluster)

        return asyncio.run(run())


def run(quick: bool) -> Report:
    """All parts. Within one, every contestant serves from the same server at the same time, but only one is asked."""
    sizes = QUICK if quick else Sizes()
    with temporary_home() as home, EmbeddedServer(home) as server:
        settings = settings_for(home)
        recorded = {
            **asdict(sizes),
            "pool_size": settings.shared_pool_size,
            "token_cache_size": settings.token_cache_size,
            "loop": "uvloop",
            "http": "httptools",
            "path": PATH,
            **asyncio.run(server_settings(server.admin_dsn)),
        }
        report = Report("request_path", quick, recorded)
        stage = Stage(home, settings, server.admin_dsn, sizes, report)
        scene = stage.prepare(lambda plane, cluster: shared_scene(plane, cluster, stage.dsn, sizes.tenants, sizes.rows))
        with started(stage.home, scene.rival, scene.requests, OURS, UNCACHED, BARE, TYPICAL) as contestants:
            _require_equal_answers(contestants)
            _side_by_side(stage, contestants)
            _two_processes(stage, scene, contestants)
            _many_tenants(stage, contestants[OURS].processes)
        _schema_homes(stage)
        _far_database(stage, scene)  # last: the cluster's address is the proxy's from then on
    return report


def _side_by_side(stage: Stage, contestants: dict[str, Contestant]) -> None:
    found = compete(contestants, stage.load())
    for field in ("throughput", "p50", "p99", "cpu"):
        stage.report.figures += [getattr(results, field) for results in found.values()]
    ours, uncached, bare, typical = (found[name].throughput for name in (OURS, UNCACHED, BARE, TYPICAL))
    stage.report.ratios += [
        ratio("throughput against the bare endpoint", ours, bare, "≥ 0.9"),
        ratio("throughput against the typical endpoint", ours, typical, "≥ 6"),
        ratio("processor time against the bare endpoint", found[OURS].cpu, found[BARE].cpu, "≤ 1"),
        ratio("no token cache, against the bare endpoint", uncached, bare),
        ratio("no token cache, against the typical endpoint", uncached, typical),
    ]


def _two_processes(stage: Stage, scene: Scene, first: dict[str, Contestant]) -> None:
    names, prefix = (OURS, BARE, TYPICAL), "2 processes, "
    with started(stage.home, scene.rival, scene.requests, *names) as second:
        pairs = {name: Contestant([*first[name].processes, *second[name].processes], scene.requests) for name in names}
        found = compete(pairs, stage.load(rounds=min(5, stage.sizes.rounds)), prefix)
    stage.report.figures += [each for results in found.values() for each in (results.throughput, results.p99)]
    ours, bare, typical = (found[name].throughput for name in names)
    stage.report.ratios += [
        ratio(prefix + "against the bare endpoint", ours, bare, "≥ 0.9"),
        ratio(prefix + "against the typical endpoint", ours, typical),
        ratio(prefix + "the bare endpoint against the typical one", bare, typical),
    ]


def _far_database(stage: Stage, scene: Scene) -> None:
    sizes, names = stage.sizes, (OURS, BARE, TYPICAL)
    with delayed(stage.dsn, sizes.latency) as dsn:
        stage.prepare(lambda plane, cluster: _move(plane, cluster, dsn))
        prefix = f"{sizes.latency:g} ms to the database, "
        far = scene.rival.model_copy(update={"dsn": _through(dsn, scene.rival.dsn)})
        with started(stage.home, far, scene.requests, *names) as contestants:
            found = compete(contestants, stage.load(rounds=min(5, sizes.rounds)), prefix)
        capacity = Series("the delay proxy alone, SELECT 1 of pgbench", "req/s", [_capacity(dsn, sizes)])
        added = asyncio.run(_round_trip(dsn)) - asyncio.run(_round_trip(stage.dsn))
    ours, bare, typical = (found[name].throughput for name in names)
    fastest = Series("", "", [max(each.median for each in (ours, bare, typical))])
    stage.report.figures += [each for results in found.values() for each in (results.throughput, results.p99)]
    stage.report.figures += [capacity, Series("the delay that the proxy adds to a round trip", "ms", [added])]
    stage.report.ratios += [
        ratio(prefix + "against the bare endpoint", ours, bare, "≥ 0.9"),
        ratio(prefix + "against the typical endpoint", ours, typical, "≥ 3"),
        ratio("the delay proxy alone, against the fastest through it", capacity, fastest, "≥ 1.5"),
    ]


def _many_tenants(stage: Stage, ours: list[Process]) -> None:
    """Requests in random order, so that a cache that is too small is hit as often as its share of the tokens."""
    sizes = stage.sizes
    requests = stage.prepare(lambda plane, cluster: crowd(plane, cluster, sizes.many, sizes.many_rows))
    large = str(2 * sizes.many)
    with service(stage.home, CP_TOKEN_CACHE_SIZE=large) as roomy:
        contestants = {
            "1 tenant": Contestant(ours, requests[:1]),
            f"{sizes.few:,} tenants": Contestant(ours, requests[: sizes.few]),
            f"{sizes.many:,} tenants": Contestant(ours, requests),
            f"{sizes.many:,} tenants, token cache of {int(large):,}": Contestant([roomy], requests),
        }
        for contestant in list(contestants.values())[2:]:
            # The first request of a tenant reads its placement, which the rounds are not about.
            ask_all(contestant.processes[0].port, contestant.requests, sizes.connections)
        found = compete(contestants, stage.load(rounds=min(5, sizes.rounds), seed=1))
    for results in found.values():
        stage.report.figures += [results.throughput, results.p99, results.cpu]
    one = next(iter(found.values())).throughput
    stage.report.ratios += [
        ratio(f"{name}, against 1 tenant", results.throughput, one) for name, results in list(found.items())[1:]
    ]


def _schema_homes(stage: Stage) -> None:
    sizes, name = stage.sizes, f"{stage.sizes.tenants} schema homes on {stage.sizes.budget} connections"
    requests = stage.prepare(lambda plane, cluster: schema_requests(plane, cluster, sizes.tenants, sizes.rows))
    with service(stage.home, CP_CLUSTER_CONNECTIONS=str(sizes.budget)) as ours:
        began, before = time.monotonic(), asyncio.run(_sessions(stage.dsn))
        found = compete({name: Contestant([ours], requests)}, stage.load(rounds=min(5, sizes.rounds), seed=1))[name]
        opened = asyncio.run(_sessions(stage.dsn)) - before
        per_second = opened / (time.monotonic() - began)
    stage.report.figures += [found.throughput, found.p99, Series(f"{name}, sessions opened", "1/s", [per_second])]
    stage.report.ratios.append(Ratio(f"{name}, answered without 503", "share", found.answered.values, "= 1"))


async def _move(plane: ControlPlane, cluster: Cluster, dsn: str) -> None:
    async with plane.databases.registry.begin() as session:
        (await session.get_one(Cluster, cluster.id)).dsn = plane.databases.box.seal(dsn)


def _through(proxy: str, dsn: str) -> str:
    """`dsn` with the address of `proxy`."""
    login, database = re.fullmatch(r"postgresql://(.*)@/(.*)\?.*", dsn).groups()  # type: ignore[union-attr]
    user, _, password = login.partition(":")
    return dsn_with(proxy, database=database, user=user, password=unquote(password))


def _capacity(dsn: str, sizes: Sizes) -> float:
    """Requests per second of a client that asks for nothing, on more connections than any contestant has."""
    options = [f"--client={sizes.proxy_connections}", "--jobs=1", f"--time={max(1, round(sizes.seconds))}"]
    command = [str(binary("pgbench")), "--no-vacuum", "--protocol=prepared", "--file=/dev/stdin", *options, dsn]
    done = subprocess.run(command, input="SELECT 1;", capture_output=True, text=True, check=True)
    return float(re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)[1])  # type: ignore[index]


async def _round_trip(dsn: str) -> float:
    """Milliseconds of the fastest of many."""
    connection = await connect(dsn, application_name="benchmark")
    taken = []
    for _ in range(200):
        began = time.perf_counter()
        await connection.fetchval("SELECT 1")
        taken.append((time.perf_counter() - began) * 1000)
    await connection.close()
    return min(taken)


async def _sessions(dsn: str) -> int:
    connection = await connect(dsn, application_name="benchmark")
    try:
        count: int = await connection.fetchval("SELECT sum(sessions)::bigint FROM pg_stat_database")
        return count
    finally:
        await connection.close()


def _require_equal_answers(contestants: dict[str, Contestant]) -> None:
    """Byte for byte, but for the typical service: it writes the same value in another order of keys."""
    for request in contestants[OURS].requests:
        bodies = {name: fetch(each.processes[0].port, request) for name, each in contestants.items()}
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
