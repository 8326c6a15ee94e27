"""Helm, where the machine has it, and what the chart renders to."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "control-plane"
KUBERNETES = "1.34.0"

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]


@pytest.fixture(scope="session")
def helm() -> str:
    """The helm binary; tests/containers/helm.sh installs one."""
    beside = ROOT / ".venv" / "bin" / "helm"
    found = shutil.which("helm") or (str(beside) if beside.is_file() else None)
    if found is None:
        pytest.skip("helm is not on this machine; tests/containers/helm.sh builds it where Go is")
    return found


@pytest.fixture(scope="session")
def template(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`helm template` of the chart with `values` (a mapping) and further arguments, in an empty home directory."""
    home = tmp_path_factory.mktemp("helm")

    def run(values: dict[str, Any] | None = None, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [helm, "template", "demo", str(CHART), "--kube-version", KUBERNETES, "--values", "-", *arguments],
            input=yaml.safe_dump(values or {}),
            capture_output=True,
            text=True,
            timeout=60,
            env={"HOME": str(home), "PATH": ""},
        )

    return run


@pytest.fixture(scope="session")
def render(template: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """The objects of the chart under `values`."""

    def run(values: dict[str, Any] | None = None, *arguments: str) -> Objects:
        result = template(values, *arguments)
        assert result.returncode == 0, result.stderr
        return [each for each in yaml.safe_load_all(result.stdout) if each]

    return run
