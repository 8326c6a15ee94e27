"""HTTP servers under the same application, which costs next to nothing: what is left is theirs."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version

from benchmarks.contestants import Contestant, Load, compete
from benchmarks.figures import Report, ratio
from benchmarks.stage import environment, free_port, running

APP = "benchmarks.rivals.still:app"
OURS, FIRST = "cp serve: uvicorn, httptools, with limits and drain", "uvicorn, httptools"
_UVICORN = ["uvicorn", APP, "--loop", "uvloop", "--ws", "none", "--no-access-log", "--log-level", "warning", "--port"]
_GRANIAN = ["granian", APP, "--interface", "asgi", "--loop", "uvloop", "--http", "1", "--no-ws", "--workers", "1",
            "--log-level", "warning", "--runtime-mode"]  # fmt: skip
COMMANDS = {
    OURS: ["benchmarks.rivals.still"],
    FIRST: [*_UVICORN[:2], "--http", "httptools", *_UVICORN[2:]],
    "uvicorn, h11": [*_UVICORN[:2], "--http", "h11", *_UVICORN[2:]],
    "granian, single-threaded runtime": [*_GRANIAN, "st", "--port"],
    "granian, multi-threaded runtime": [*_GRANIAN, "mt", "--port"],
    "granian, tasks in Rust": [*_GRANIAN, "st", "--task-impl", "rust", "--port"],
}
# As a client of the tenant API sends it.
REQUEST = (
    f"GET /api/v1/users HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
    f"X-Tenant-Id: 00000000-0000-4000-8000-000000000000\r\nAuthorization: Bearer {'x' * 400}\r\n\r\n"
)


def run(quick: bool) -> Report:
    """All servers, one process each; every one of them waits, but only one is asked."""
    load = Load(rounds=1, seconds=0.3, warmup=0.1, connections=2) if quick else Load(9, 2.0, 0.5, 16)
    report = Report("servers", quick, {**asdict(load), "granian": version("granian"), "h11": version("h11")})
    with ExitStack() as stack:
        contestants = {}
        for name, command in COMMANDS.items():
            port = free_port()
            started = running([sys.executable, "-m", *command, str(port)], port, "/", environment(None))
            contestants[name] = Contestant([stack.enter_context(started)], [REQUEST])
        found = compete(contestants, load)
    for results in found.values():
        report.figures += [results.throughput, results.p99, results.cpu]
    first = found.pop(FIRST)
    for name, results in found.items():
        report.ratios += [
            ratio(f"{name}: throughput against {FIRST}", results.throughput, first.throughput),
            ratio(f"{name}: processor time against {FIRST}", results.cpu, first.cpu),
        ]
    return report
