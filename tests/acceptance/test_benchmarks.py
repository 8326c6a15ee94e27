"""The benchmarks run and write what they found. What they found is for `make bench`, on a quiet machine."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNTS = {"request_path": 15, "servers": 10, "provision": 4, "migrate": 5, "fleet": 7, "rebuild": 2}  # ratios
QUICKEST = "rebuild"  # the others start up to a dozen services each


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == QUICKEST else pytest.mark.long) for name in COUNTS]
)
def test_a_benchmark_runs_and_writes_positive_figures(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", name, "--quick", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    report = json.loads((tmp_path / f"{name}-quick.json").read_text())
    assert (report["benchmark"], report["quick"]) == (name, True)
    assert report["machine"]["cpus"] > 0
    assert report["versions"]["asyncpg"]
    assert report["settings"].get("postgres.fsync", "on") == "on"
    assert len(report["ratios"]) == COUNTS[name]
    for entry in [*report["ratios"], *report["figures"]]:
        assert entry["values"], entry["name"]
        assert all(math.isfinite(value) and value > 0 for value in entry["values"]), entry
        assert entry["low"] <= entry["median"] <= entry["high"]


def test_the_report_puts_its_table_where_the_document_has_room_for_it(tmp_path: Path) -> None:
    entry = {"name": "ours / theirs", "unit": "×", "median": 0.91, "low": 0.85, "high": 1.2, "goal": "≥ 0.7"}
    machine = {"cpus": 2, "architecture": "x86_64", "load_before": 0.1, "load_after": 1.9}
    report = {
        "benchmark": "request_path",
        "started_at": "2026-01-01T00:00:00+00:00",
        "machine": machine,
        "versions": {"python": "3.13.1"},
        "settings": {"postgres.server_version": "18.1"},
        "figures": [],
        "ratios": [entry],
    }
    (tmp_path / "request_path.json").write_text(json.dumps(report))
    (tmp_path / "migrate-quick.json").write_text("not a result")
    document = tmp_path / "benchmarks.md"
    document.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    for _ in range(2):  # the second time in place of the first
        command = [sys.executable, "-m", "benchmarks", "report", "--results", str(tmp_path), "--into", str(document)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=110)
    written = document.read_text()
    assert written.count("| **ours / theirs** | 0.91 × | 0.85 – 1.20 | ≥ 0.7 |") == 1
    tables = re.findall(r"^\*\*(\w+)\*\* — ", written.partition("<!-- figures")[2], re.MULTILINE)
    assert tables == sorted(set(tables))
    assert "request_path" in tables
    assert len(tables) > 1, "the tables of other benchmarks stay"
