"""The README and the documents say what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from control_plane.cli.main import app
from control_plane.settings import Settings
from control_plane.tenants.lifecycle import TRANSITIONS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [path for place in ("", "docs/", "tenant_templates/") for path in sorted(ROOT.glob(f"{place}*.md"))]

PROGRAM = typer.main.get_command(app)

# A command at the start of a line of a code block, after a pipe or in $(…), or alone in inline code.
SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
IN_SHELL = re.compile(r"(?:^|\$\(|[|;&]\s*)((?:cp|control-plane) [^)|;&\n]*)", re.MULTILINE)
INLINE = re.compile(r"`((?:cp|control-plane) [a-z][^`]*)`")


def section(title: str) -> str:
    _, found, rest = README.partition(f"\n## {title}\n")
    assert found, f"README.md has no section {title}"
    return rest.partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def commands(text: str) -> list[str]:
    blocks = SHELL_BLOCK.findall(text)
    prose = SHELL_BLOCK.sub("", text)
    return [*(each for block in blocks for each in IN_SHELL.findall(block)), *INLINE.findall(prose)]


def envvars(command: Any) -> set[str]:
    found = {str(parameter.envvar) for parameter in command.params if parameter.envvar}
    if isinstance(command, TyperGroup):
        found |= {name for each in command.commands.values() for name in envvars(each)}
    return found


def check_command(line: str) -> None:
    """Follow `line` down the command tree; raises AssertionError where a command or an option does not exist."""
    command: Any = PROGRAM
    words = shlex.split(line)[1:]
    while words and isinstance(command, TyperGroup) and not words[0].startswith("-"):
        word = words.pop(0)
        for name in word.split("|"):
            assert name in command.commands, f"{line}: no command {name}"
        command = command.commands[word.partition("|")[0]]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in options | {"--help"}, f"{line}: no option {word}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_named_in_a_document_exists(document: Path) -> None:
    for line in commands(document.read_text(encoding="utf-8")):
        if line != "cp ./dev elsewhere":
            check_command(line)


def test_the_readme_names_commands_in_blocks_and_in_prose() -> None:
    found = commands(README)
    assert {"cp migrate-all --plan", "cp token --platform", "cp doctor"} <= set(found)


@pytest.mark.parametrize("line", ["cp tenant creat x", "cp migrate-all --plam", "cp tenant list|sho"])
def test_the_check_sees_a_command_that_does_not_exist(line: str) -> None:
    with pytest.raises(AssertionError, match=r"no command|no option"):
        check_command(line)


def test_the_environment_table_is_complete_and_true() -> None:
    documented = [name for cells in rows("Settings") for name in code(cells[0])]
    assert sorted(documented) == sorted({f"CP_{name.upper()}" for name in Settings.model_fields} | envvars(PROGRAM))


def test_the_defaults_in_the_environment_table_are_true() -> None:
    fields = Settings.model_fields
    for name, default, _ in ((code(cells[0])[0], code(cells[1]), cells[2]) for cells in rows("Settings")):
        field = fields.get(name.removeprefix("CP_").lower())
        if field is None or not default:
            assert field is None or field.default is None or field.default_factory is not None, name
        elif isinstance(field.default, int | float):
            assert float(default[0]) == field.default, name
        else:
            assert default[0].removeprefix("./") == str(field.default), name


def test_the_table_of_states_is_the_code_s() -> None:
    documented = {code(status)[0]: set(code(following)) for status, _, following in rows("States of a tenant")}
    reachable = {status: {*actions.values()} - {status} for status, actions in TRANSITIONS.items()}
    assert documented == reachable


def test_every_path_in_the_readme_exists() -> None:
    in_code_map = [path for path in code(section("Code Map")) if "/" in path or "." in path]
    elsewhere = [
        path for path in code(SHELL_BLOCK.sub("", README)) if re.match(r"(tenant_templates|examples|docs)/", path)
    ]
    paths = in_code_map + elsewhere
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_code_map_leaves_out_no_part_of_the_package() -> None:
    parts = {path.name for path in (ROOT / "control_plane").iterdir() if not path.name.startswith(("_", "py."))}
    mapped = {Path(path).name for path in code(section("Code Map")) if path.startswith("control_plane/")}
    assert parts <= mapped
