"""`control-plane template …` as a process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.settings import shipped
from tests.support.program import Program, free_port
from tests.support.servers import temporary_home


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Templates to write to: the smallest one."""
    shutil.copytree(shipped("tenant_templates") / "starter", tmp_path / "templates" / "starter")
    return tmp_path / "templates"


@pytest.fixture
def program(directory: Path) -> Iterator[Program]:
    with temporary_home() as home:
        yield Program(home, free_port(), CP_TEMPLATES=str(directory), CP_TEMPLATE="starter")


@pytest.mark.timeout(300)
def test_a_new_template_passes_the_gate_and_tenants_are_made_of_it(program: Program, directory: Path) -> None:
    made = program.run("template", "new", "shop").stdout
    assert str(directory / "shop") in made
    assert program.run("template", "lint").stdout == "Nothing breaks a rule: shop, starter.\n"
    assert not program.home.exists(), "reading a text needs no server"

    program.run("init")
    assert program.run("template", "lint", "--scratch").stdout == "Nothing breaks a rule: shop, starter.\n"
    created = json.loads(program.run("tenant", "create", "acme", "--template", "shop", "--json").stdout)
    assert (created["template"], created["pattern_version"], created["status"]) == ("shop", 1, "active")
    assert program.run("doctor").stdout == "Nothing is wrong.\n"


@pytest.mark.timeout(300)
def test_a_rehearsal_reports_what_each_version_locks(program: Program, directory: Path) -> None:
    version = directory / "starter/versions/0002_more"
    version.mkdir()
    (version / "expand.sql").write_text("ALTER TABLE tb_note ADD COLUMN more text;\n")
    program.run("init")
    shown = program.run("template", "lint", "starter", "--scratch").stdout.splitlines()
    assert shown == [
        "0002_more locks, until it is done:",
        "  tb_note: ACCESS EXCLUSIVE",
        "Nothing breaks a rule: starter.",
    ]
    answer = json.loads(program.run("template", "lint", "starter", "--scratch", "--json").stdout)
    (locks,) = answer["locks"]["starter"]
    assert answer["findings"] == []
    assert (locks["version"], [each["relation"] for each in locks["locks"]]) == (2, ["tb_note"])


def test_what_breaks_a_rule_is_listed_for_people_and_for_scripts(program: Program, directory: Path) -> None:
    expand = directory / "starter/versions/0001_notes/expand.sql"
    expand.write_text(expand.read_text() + "GRANT SELECT ON tb_note TO PUBLIC;\n")
    line = len(expand.read_text().splitlines())

    shown = program.run("template", "lint", "starter", "--version", "1", code=1).stdout.splitlines()
    assert shown[0].startswith(f"starter/0001_notes/expand.sql:{line}: grant-by-hand: ")
    assert shown[1] == "1 to correct."

    (finding,) = json.loads(program.run("template", "lint", "--json", code=1).stdout)
    assert list(finding) == ["template", "file", "line", "rule", "message", "instead"]
    assert (finding["template"], finding["file"], finding["line"], finding["rule"]) == (
        "starter", "0001_notes/expand.sql", line, "grant-by-hand",
    )  # fmt: skip

    refused = program.run("init", code=2).stderr
    assert "(template_refused)" in refused
    assert f"place: 0001_notes/expand.sql:{line}, rule: grant-by-hand" in refused
    assert "hint: " in refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lint", "nothing"), "template_not_found"),
        (("lint", "starter", "--version", "2"), "template_not_found"),
        (("lint", "--version", "1"), "--version needs the name of a template"),
        (("new", "starter"), "template_exists"),
        (("new", "Bad-Name"), "invalid_input"),
        (("show", "nothing"), "template_not_found"),
    ],
)
def test_what_cannot_be_done_is_refused(program: Program, arguments: tuple[str, ...], said: str) -> None:
    assert said in program.run("template", *arguments, code=2).stderr


def test_templates_are_listed_and_shown(program: Program) -> None:
    (listed,) = json.loads(program.run("template", "list", "--json").stdout)
    assert (listed["name"], listed["versions"], listed["resources"]) == ("starter", 1, ["notes"])
    shown = json.loads(program.run("template", "show", "starter", "--json").stdout)
    assert [version["name"] for version in shown["versions"]] == ["0001_notes"]
    assert shown["versions"][0]["checksum"] in program.run("template", "show", "starter").stdout
