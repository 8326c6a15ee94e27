"""Who serves the same rows, and what each of them takes for it, in rounds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Series, interleaved
from benchmarks.load import Task, measure
from benchmarks.rivals import Rival
from benchmarks.stage import Process, environment, free_port, running, service

OURS, UNCACHED, BARE, TYPICAL = "control plane", "control plane, no token cache", "bare Starlette", "typical FastAPI"


@dataclass(frozen=True)
class Load:
    """How each contestant is asked; times in seconds. `seed` makes the order of the requests random."""

    rounds: int
    seconds: float
    warmup: float
    connections: int
    seed: int | None = None


@dataclass(frozen=True)
class Contestant:
    """Processes that share the connections, and the whole HTTP requests that they are asked."""

    processes: list[Process]
    requests: list[str]

    def cpu(self) -> float:
        return sum(process.cpu() for process in self.processes)


class Results:
    """Of one contestant, a value per round."""

    def __init__(self, name: str) -> None:
        self.throughput = Series(name, "req/s")
        self.p50 = Series(f"{name}, p50", "ms")
        self.p99 = Series(f"{name}, p99", "ms")
        self.cpu = Series(f"{name}, processor time", "µs/req")  # of the service alone, user and system
        self.answered = Series(f"{name}, answered without 503", "share")


def compete(contestants: Mapping[str, Contestant], load: Load, prefix: str = "") -> dict[str, Results]:
    """Ask everybody in turns, round after round; only one of them is asked at a time."""
    found = {name: Results(prefix + name) for name in contestants}
    for number, order in enumerate(interleaved(list(contestants), load.rounds)):
        for name in order:
            _ask(contestants[name], load, number, found[name])
    return found


def _ask(contestant: Contestant, load: Load, number: int, results: Results) -> None:
    before = contestant.cpu()
    measured = measure(
        Task(
            ports=[process.port for process in contestant.processes],
            requests=contestant.requests,
            connections=load.connections,
            warmup=load.warmup,
            seconds=load.seconds,
            seed=None if load.seed is None else load.seed + number,
        )
    )
    results.throughput.values.append(measured.per_second)
    results.p50.values.append(measured.p50)
    results.p99.values.append(measured.p99)
    results.cpu.values.append((contestant.cpu() - before) / measured.answered * 1e6)
    results.answered.values.append(1 - measured.refused / measured.requests)


@contextmanager
def started(home: Path, rival: Rival, requests: list[str], *names: str) -> Iterator[dict[str, Contestant]]:
    """Those of the contestants that are named, one process each."""
    with ExitStack() as stack:
        yield {name: Contestant([stack.enter_context(_process(home, rival, name))], requests) for name in names}


@contextmanager
def _process(home: Path, rival: Rival, name: str) -> Iterator[Process]:
    if name in (OURS, UNCACHED):
        variables = {"CP_TOKEN_CACHE_SIZE": "0"} if name == UNCACHED else {}
        with service(home, **variables) as process:
            yield process
        return
    app = ["benchmarks.rivals.bare:create_app", "--factory"] if name == BARE else ["benchmarks.rivals.typical:app"]
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", *app, "--port", str(port), "--workers", "1"]
    command += ["--loop", "uvloop", "--http", "httptools", "--ws", "none", "--no-access-log", "--no-server-header"]
    variables = environment(home, RIVAL=rival.model_dump_json())
    with running([*command, "--log-level", "warning"], port, "/", variables) as process:
        yield process
