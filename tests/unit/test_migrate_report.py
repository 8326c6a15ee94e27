"""What people see of a home that is at a step for long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from control_plane.cli import migrate_report
from control_plane.cli.migrate_report import LineReport, ScreenReport
from control_plane.migrator import DueHome, HomeResult, Plan, Planned, StepProgress
from control_plane.registry.fleet import Place
from control_plane.registry.models import Cluster
from tests.support.templates import write_sample

STEP = StepProgress(
    cluster="eu", slug="acme", label="acme", home_id=UUID(int=1), version=4, step="backfill", statement=1, statements=2,
    rows=12_000,
)  # fmt: skip
LINE = "acme on eu: backfill.sql of version 4, statement 1 of 2, 12,000 rows so far\n"


def test_a_log_tells_a_step_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    report = LineReport()
    for _ in range(3):
        report.event(STEP)
    assert capsys.readouterr().out == LINE
    monkeypatch.setattr(migrate_report, "_SECONDS_BETWEEN_LINES", 0.0)
    report.event(replace(STEP, step="concurrent", rows=0))
    assert capsys.readouterr().out == "acme on eu: concurrent.sql of version 4, statement 1 of 2\n"


def test_a_screen_shows_the_step_until_the_home_is_done(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cluster = Cluster(id=uuid4(), name="eu", dsn=b"", database="cp_tenants")
    home = DueHome(Place(cluster, "cp_tenants"), STEP.home_id, "schema", "t_1", 3, 4, "acme", 1)
    plan = Plan(
        template=write_sample(tmp_path, {"expand.sql": "SELECT 1"}), target=4, homes=(home,), current=0, ahead=0,
        building=0, deleting=(), pinned=(), unreached=(), outdated=(),
    )  # fmt: skip
    with ScreenReport() as report:
        report.event(Planned(plan))
        report.event(STEP)
        assert report._progress.tasks[0].fields["step"] == LINE.strip()
        report.event(HomeResult("eu", "acme", "acme", STEP.home_id, "schema", 3, 4, 4, "done", 1, 1))
        assert report._progress.tasks[0].fields["step"] == ""
    assert "1 done" in capsys.readouterr().out
