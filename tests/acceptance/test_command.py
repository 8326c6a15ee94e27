"""Our `cp` comes first on the PATH of an activated environment, and must still copy files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import typer

from control_plane.command import COMMANDS

SCRIPTS = Path(sysconfig.get_path("scripts"))
SYSTEM_COPY = shutil.which("cp", path=os.defpath)

Run = subprocess.CompletedProcess[str]


def cp(*arguments: str, cwd: Path, path: str | None = None, script: Path = SCRIPTS / "cp") -> Run:
    environment = os.environ | {"PATH": path if path is not None else f"{SCRIPTS}:{os.environ['PATH']}"}
    return subprocess.run([script, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def system_cp(*arguments: str, cwd: Path) -> Run:
    assert SYSTEM_COPY is not None
    return subprocess.run(
        ["cp", *arguments], executable=SYSTEM_COPY, cwd=cwd, capture_output=True, text=True, check=False
    )


def outcome(run: Run) -> tuple[int, str, str]:
    return run.returncode, run.stdout, run.stderr


def test_the_list_of_commands_is_the_program_s() -> None:
    from control_plane.cli.main import app

    program = typer.main.get_command(app)
    assert set(COMMANDS) == set(program.commands)  # type: ignore[attr-defined]


def test_a_shell_in_an_activated_environment_copies_files(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("one")
    activated = {"PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
    subprocess.run(["/bin/sh", "-c", "cp 'a file' b && cp b c"], cwd=tmp_path, env=activated, check=True)
    assert (tmp_path / "c").read_text() == "one"


def test_it_copies_a_tree(tmp_path: Path) -> None:
    (tmp_path / "tree" / "branch").mkdir(parents=True)
    (tmp_path / "tree" / "branch" / "leaf").write_text("green")
    assert outcome(cp("-r", "tree", "copy", cwd=tmp_path)) == (0, "", "")
    assert (tmp_path / "copy" / "branch" / "leaf").read_text() == "green"


def test_two_dashes_copy_a_file_that_is_named_like_a_command(tmp_path: Path) -> None:
    (tmp_path / "dev").write_text("a device")
    assert outcome(cp("--", "dev", "x", cwd=tmp_path)) == (0, "", "")
    assert (tmp_path / "x").read_text() == "a device"


def test_names_that_are_not_text_arrive_unchanged(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).write_text("latin-1")
    assert cp(os.fsdecode(b"caf\xe9"), "copy", cwd=tmp_path).returncode == 0
    assert (tmp_path / "copy").read_text() == "latin-1"


@pytest.mark.parametrize(
    "arguments", [(), ("--help",), ("--version",), ("missing", "x"), ("--no-such-option",), ("-r",), ("Dev", "x")]
)
def test_output_and_exit_code_are_the_system_s(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert outcome(cp(*arguments, cwd=tmp_path)) == outcome(system_cp(*arguments, cwd=tmp_path))


def test_a_signal_ends_it_as_it_would_end_the_system_s(tmp_path: Path) -> None:
    other = tmp_path / "bin"
    other.mkdir()
    (other / "cp").write_text("#!/bin/sh\nkill -PIPE $$\n")
    (other / "cp").chmod(0o755)
    run = cp("a", "b", cwd=tmp_path, path=f"{SCRIPTS}:{other}:{os.defpath}")
    assert run.returncode == -signal.SIGPIPE


def test_two_environments_on_the_path_do_not_call_each_other_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(SCRIPTS / "cp", tmp_path / name / "cp")
    path = f"{tmp_path}/one:{tmp_path}/two:{tmp_path}/one:{os.defpath}"
    run = cp("a", "b", cwd=tmp_path, path=path, script=tmp_path / "one" / "cp")
    assert outcome(run) == (0, "", "")
    assert (tmp_path / "b").read_text() == "one"


def test_a_link_to_the_script_still_finds_the_system_s(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cp").symlink_to(SCRIPTS / "cp")
    run = cp("--version", cwd=tmp_path, path=f"{tmp_path}/bin:{SCRIPTS}:{os.defpath}", script=tmp_path / "bin" / "cp")
    assert outcome(run) == outcome(system_cp("--version", cwd=tmp_path))


def test_without_a_path_it_takes_the_standard_one(tmp_path: Path) -> None:
    assert cp("--version", cwd=tmp_path, path="").returncode == 0


def test_copying_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, control_plane.command; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    ours = {name for name in loaded.stdout.split() if name.partition(".")[0] == "control_plane"}
    assert ours == {"control_plane", "control_plane.command"}
    assert not {"typer", "rich", "asyncio", "sqlalchemy", "fastapi", "pydantic"} & set(loaded.stdout.split())


@pytest.mark.parametrize("script", ["cp", "control-plane"])
@pytest.mark.parametrize("command", ["token", "migrate status"])
def test_a_command_explains_itself_under_the_name_it_was_called_by(script: str, command: str, tmp_path: Path) -> None:
    asked = [str(SCRIPTS / script), *command.split(), "--help"]
    run = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"Usage: {script} {command}" in run.stdout


def test_the_long_name_has_the_program_s_own_help(tmp_path: Path) -> None:
    run = subprocess.run(
        [SCRIPTS / "control-plane", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "migrate-all" in run.stdout
