"""The table of docs/benchmarks.md, made from the results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: python -m benchmarks report --into docs/benchmarks.md -->", "<!-- end of figures -->"


def show(results: Path, into: Path | None) -> None:
    """Print the table, or replace the one in `into`."""
    table = render(
        [json.loads(path.read_text()) for path in sorted(results.glob("*.json")) if "-quick" not in path.name]
    )
    if into is None:
        print(table)
        return
    text = into.read_text()
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{into} has no place for the table: {BEGIN} … {END}")
    into.write_text(pattern.sub(lambda _: f"{BEGIN}\n\n{table}\n\n{END}", text))


def render(documents: list[dict[str, Any]]) -> str:
    """One table per benchmark: ratios first, then the figures they come from."""
    return "\n\n".join(_one(document) for document in documents) or "No results yet: `make bench`."


def _one(document: dict[str, Any]) -> str:
    machine, versions, settings = document["machine"], document["versions"], document["settings"]
    postgres = settings.get("postgres.server_version")
    lines = [
        f"**{document['benchmark']}** — {document['started_at'][:10]}, {machine['cpus']} CPUs, "
        f"{machine['architecture']}, Python {versions['python']}, {f'PostgreSQL {postgres}, ' if postgres else ''}"
        f"load average {machine['load_before']:.1f} before and {machine['load_after']:.1f} after",
        "",
        "| | median | range | goal |",
        "|---|--:|--:|--:|",
    ]
    lines += [_row(f"**{entry['name']}**", entry) for entry in document["ratios"]]
    lines += [_row(entry["name"], entry) for entry in document["figures"]]
    return "\n".join(lines)


def _row(name: str, entry: dict[str, Any]) -> str:
    unit = entry["unit"]
    middle, low, high = (
        f"{entry[key]:,.0f}" if entry[key] >= 100 else f"{entry[key]:.2f}" for key in ("median", "low", "high")
    )
    return f"| {name} | {middle} {unit} | {low} – {high} | {entry.get('goal', '')} |"
