"""`python -m benchmarks [NAME …] [--quick]`, all by default: see `BENCHMARKS`; `… report`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks import fleet, migrate, provision, rebuild, request_path, servers, table
from benchmarks.figures import Report

RESULTS = Path(__file__).parent / "results"
BENCHMARKS: dict[str, Callable[[bool], Report]] = {
    "request_path": request_path.run,
    "servers": servers.run,
    "provision": provision.run,
    "migrate": migrate.run,
    "fleet": fleet.run,
    "rebuild": rebuild.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(BENCHMARKS)} or report")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, and measures nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    parser.add_argument("--into", type=Path, help="with report: the Markdown file whose table is to be replaced")
    given = parser.parse_args()

    if given.names == ["report"]:
        table.show(given.results, given.into)
        return
    unknown = set(given.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for name in given.names or BENCHMARKS:
        report = BENCHMARKS[name](given.quick)
        report.show()
        print(f"  → {report.write(given.results)}")


if __name__ == "__main__":
    main()
