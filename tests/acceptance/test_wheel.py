"""The wheel, installed outside of the tree, does the main job: onboard, serve, release."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.servers import temporary_home

ROOT = Path(__file__).resolve().parents[2]
LISTENING = re.compile(r"listening on (http://\S+)")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console scripts' folder of a new environment that holds the wheel and borrows its dependencies from ours."""
    environment = tmp_path_factory.mktemp("outside the tree") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", wheel], check=True)
    (packages,) = environment.glob("lib/python3*/site-packages")
    # A line of a .pth file extends the path, but the .pth files there are not read: the tree stays out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


def tree(directory: str) -> set[str]:
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", directory], check=True, capture_output=True, text=True
    ).stdout.split("\0")
    return {path for path in listed if path and (ROOT / path).exists()}


@pytest.mark.parametrize("directory", ["sql", "tenant_templates"])
def test_the_wheel_carries_all_files_of(directory: str, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"control_plane/_shipped/{path}" for path in tree(directory)}
    assert expected
    assert expected <= names


def test_the_wheel_carries_the_whole_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert tree("control_plane") <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"control_plane", "saas_control_plane"}


def test_the_wheel_brings_both_console_scripts(scripts: Path) -> None:
    assert {"cp", "control-plane"} <= {path.name for path in scripts.iterdir()}


def test_the_wheel_brings_the_pytest_plugin_and_not_pytest(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    entries = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "[pytest11]\ntenancy = control_plane.testing.plugin\n" in entries
    needed = [line for line in archive.read(metadata).decode().splitlines() if line.startswith("Requires-Dist: pytest")]
    assert "Requires-Dist: pytest>=9; extra == 'testing'" in needed
    assert all("extra == " in line for line in needed)


def test_what_is_installed_reads_nothing_of_the_tree(scripts: Path, tmp_path: Path) -> None:
    code = "from control_plane.settings import shipped; print(shipped('sql'), shipped('tenant_templates'), sep='\\n')"
    run = subprocess.run([scripts / "python", "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    for line in run.stdout.splitlines():
        assert Path(line).is_relative_to(scripts.parent)
        assert any(Path(line).iterdir())


def test_a_new_template_is_never_written_into_the_installed_package(scripts: Path, tmp_path: Path) -> None:
    def new(*more: str) -> subprocess.CompletedProcess[str]:
        command = [str(scripts / "control-plane"), "template", "new", "shop", *more]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CP_", "PYTHON"))}
        return subprocess.run(command, env=kept, cwd=tmp_path, capture_output=True, text=True, check=False)

    refused = new()
    assert refused.returncode == 2
    assert "--into DIRECTORY, and set CP_TEMPLATES" in refused.stderr
    assert new("--into", "mine").returncode == 0
    assert (tmp_path / "mine/shop/template.toml").is_file()


@contextmanager
def served(scripts: Path, environment: Mapping[str, str], log: Path) -> Iterator[str]:
    """The address of a running service, which is stopped gracefully afterwards."""
    command = [str(scripts / "control-plane"), "serve", "--port", "0"]
    with log.open("wb") as stderr:
        service = subprocess.Popen(command, env=environment, cwd=log.parent, stderr=stderr)
    try:
        while not (found := LISTENING.search(log.read_text())):
            assert service.poll() is None, log.read_text()
            with pytest.raises(subprocess.TimeoutExpired):
                service.wait(0.05)
        with httpx.Client(base_url=found[1], transport=httpx.HTTPTransport(retries=20)) as probe:
            probe.get("/healthz").raise_for_status()
        yield found[1]
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0, log.read_text()


@pytest.mark.timeout(300)
def test_it_onboards_serves_and_releases(scripts: Path, tmp_path: Path) -> None:
    with temporary_home() as home:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CP_", "PYTHON"))}
        environment = kept | {"CP_HOME": str(home), "CP_LOG_LEVEL": "info"}

        def control_plane(*arguments: str) -> str:
            run = subprocess.run(
                [scripts / "control-plane", *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True
            )
            assert run.returncode == 0, run.stderr
            return run.stdout

        def bearer(*arguments: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {control_plane('token', *arguments).strip()}"}

        control_plane("init", "--template-version", "1")
        with served(scripts, environment, tmp_path / "log") as address, httpx.Client(base_url=address) as http:
            new = {"slug": "umbrella", "name": "Umbrella Corp.", "isolation": "schema"}
            onboarded = http.post("/tenants", json=new, headers=bearer("--platform"), timeout=60)
            assert onboarded.status_code == 201, onboarded.text
            assert onboarded.json()["pattern_version"] == 1

            tenant = bearer("--tenant", "umbrella")
            created = http.post("/api/v1/rpc/create_project", json={"name": "Hive"}, headers=tenant)
            assert created.json()["success"], created.text
            listed = http.get("/api/v1/projects", headers=tenant)
            assert [project["name"] for project in listed.json()] == ["Hive"]

            events = [json.loads(line) for line in control_plane("migrate-all", "--json").splitlines()]
            assert events
            assert [project["name"] for project in http.get("/api/v2/projects", headers=tenant).json()] == ["Hive"]
