"""The tables of docs/benchmarks.md, made from the results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_TABLE = re.compile(r"^\*\*(?P<name>\w+)\*\* — .*?(?=^\*\*\w+\*\* — |\Z)", re.DOTALL | re.MULTILINE)
BEGIN, END = "<!-- figures: python -m benchmarks report --into docs/benchmarks.md -->", "<!-- end of figures -->"


def show(results: Path, into: Path | None) -> None:
    """Print the tables, or put them into `into`, where those of benchmarks without results stay as they are."""
    found = [json.loads(path.read_text()) for path in sorted(results.glob("*.json")) if "-quick" not in path.name]
    tables = {document["benchmark"]: _one(document) for document in found}
    if into is None:
        print("\n\n".join(tables.values()) or "No results yet: `make bench`.")
        return
    text = into.read_text()
    place = re.compile(f"{re.escape(BEGIN)}(.*){re.escape(END)}", re.DOTALL).search(text)
    if place is None:
        raise SystemExit(f"{into} has no place for the tables: {BEGIN} … {END}")
    kept = {match["name"]: match[0].strip() for match in _TABLE.finditer(place[1])}
    merged = dict(sorted({**kept, **tables}.items()))
    into.write_text(
        f"{text[: place.start()]}{BEGIN}\n\n" + "\n\n".join(merged.values()) + f"\n\n{END}{text[place.end() :]}"
    )


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
