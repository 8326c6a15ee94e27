"""What people and programs see of a run."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from rich.console import Console

from control_plane.cli import migrate_report
from control_plane.cli.migrate_json import JsonReport
from control_plane.cli.migrate_report import LineReport, ScreenReport
from control_plane.migrator import (
    DueHome,
    Event,
    HomeResult,
    Paced,
    Plan,
    Planned,
    RunResult,
    Started,
    StepProgress,
    Waiting,
    WaveBegun,
)
from control_plane.registry.fleet import Place
from control_plane.registry.models import Cluster
from tests.support.templates import write_sample

STEP = StepProgress(
    cluster="eu", slug="acme", label="acme", home_id=UUID(int=1), version=4, step="backfill", statement=1, statements=2,
    rows=12_000,
)  # fmt: skip
LINE = "acme on eu: backfill.sql of version 4, statement 1 of 2, 12,000 rows so far\n"


def _plan(directory: Path) -> Plan:
    cluster = Cluster(id=uuid4(), name="eu", dsn=b"", database="cp_tenants")
    home = DueHome(Place(cluster, "cp_tenants"), STEP.home_id, "schema", "t_1", 3, 4, "acme", 1)
    return Plan(
        template=write_sample(directory, {"expand.sql": "SELECT 1"}), target=4, homes=(home,), current=0, ahead=0,
        building=0, deleting=(), pinned=(), unreached=(), outdated=(),
    )  # fmt: skip


def test_a_log_tells_a_step_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    report = LineReport()
    for _ in range(3):
        report.event(STEP)
    assert capsys.readouterr().out == LINE
    monkeypatch.setattr(migrate_report, "_SECONDS_BETWEEN_LINES", 0.0)
    report.event(replace(STEP, step="concurrent", rows=0))
    assert capsys.readouterr().out == "acme on eu: concurrent.sql of version 4, statement 1 of 2\n"


def test_a_screen_shows_the_step_until_the_home_is_done(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with ScreenReport() as report:
        report.event(Planned(_plan(tmp_path)))
        report.event(STEP)
        assert report._progress.tasks[0].fields["step"] == LINE.strip()
        report.event(HomeResult("eu", "acme", "acme", STEP.home_id, "schema", 3, 4, 4, "done", 1, 1))
        assert report._progress.tasks[0].fields["step"] == ""
    assert "1 done" in capsys.readouterr().out


def _home(number: int, status: str = "done") -> HomeResult:
    failure = {"sqlstate": "42701", "error": "column exists"} if status == "failed" else {}
    slug, home = f"tenant-{number}", UUID(int=number)
    return HomeResult("eu", slug, slug, home, "schema", 3, 4, 4, status, number, 1, **failure)  # type: ignore[arg-type]


def _result(plan: Plan, done: int, failed: int) -> RunResult:
    return RunResult(UUID(int=9), "sample", 4, "failed", done, failed, 0, 0, 0, 7200.0, None, plan)


@pytest.mark.parametrize("hours", [0.01, 1, 24])
def test_the_log_of_ten_thousand_homes_is_short_however_long_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hours: float
) -> None:
    clock = 0.0
    monkeypatch.setattr(migrate_report, "monotonic", lambda: clock)
    report, plan = LineReport(), _plan(tmp_path)
    for wave in ("internal", "canary", "5%", "25%", "rest", "largest", "shared"):
        report.event(WaveBegun(wave, 1))
    for number in range(1, 10_001):
        clock += hours * 3600 / 10_000
        report.event(Paced("eu", number % 8 + 1, None))
        report.event(_home(number, "failed" if number % 20 == 0 else "done"))
    report.end(_result(plan, 9_500, 500))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 200
    assert f"… and 450 more failures: cp migrate explain {str(UUID(int=9))[:8]}" in lines
    assert lines[-1] == "slowest: " + ", ".join(f"tenant-{n} {n:,} ms" for n in (9_999, 9_998, 9_997, 9_996, 9_995))
    if hours >= 1:
        assert any(line.startswith("5") and "at a time on eu" in line for line in lines)


def test_a_screen_shows_rate_pace_failures_and_the_slowest_homes(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    with ScreenReport() as report:
        report.event(Planned(plan))
        report.event(Paced("eu", 3, None))
        for number in range(1, 8):
            report.event(_home(number, "failed" if number == 2 else "done"))
        console = Console(width=200, record=True, file=StringIO())
        console.print(report._progress.get_renderable())
    shown = console.export_text()
    for part in ("eu", "6 done", "1 failed", "3 at a time", "homes/s", "slowest: tenant-7 7 ms, tenant-6 6 ms"):
        assert part in shown


def test_what_programs_read_is_documented_field_by_field(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "releasing.md").read_text("utf-8")
    section = page.partition("## For programs")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", section.partition("|--")[2], re.MULTILINE)
    documented = {event: set(re.findall(r"`(\w+)`", fields)) for event, fields in rows}
    events: list[Event] = [
        Planned(_plan(tmp_path)), Started(UUID(int=9)), WaveBegun("rest", 1), Waiting(UUID(int=9), "rest"), STEP,
        Paced("eu", 3, None), _home(1),
    ]  # fmt: skip
    with contextlib.redirect_stdout(StringIO()) as out, JsonReport() as report:
        for event in events:
            report.event(event)
        report.end(_result(_plan(tmp_path / "again"), 1, 0))
    printed = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {str(each["event"]) for each in printed} == set(documented)
    for each in printed:
        fields = set(each) - {"event"}
        assert fields <= documented[str(each["event"])], each["event"]
