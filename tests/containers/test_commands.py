"""Every command that the chart and the compose file start is one of the program's, options included."""

from __future__ import annotations

from typing import Any

import pytest
import typer
import yaml

from control_plane.cli.main import app
from tests.containers.conftest import ROOT, Render
from tests.containers.test_chart import EVERYTHING, pods


def check(command: list[str]) -> None:
    """Parse `command` as the program would, without running it."""
    group: Any = typer.main.get_command(app)
    name, *options = command
    assert name in group.commands, name
    group.commands[name].make_context(name, list(options))


@pytest.mark.parametrize("service", ["init", "api", "worker"])
def test_the_compose_file_starts_commands_that_exist(service: str) -> None:
    check(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][service]["command"])


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"jobs": {"init": {"args": ["--no-cluster"]}}}])
def test_the_chart_starts_commands_that_exist(render: Render, values: dict[str, Any]) -> None:
    for pod in pods(render(values)):
        check(pod["containers"][0]["args"])
