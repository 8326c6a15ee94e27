"""`cp doctor` and `cp migrate repair` as people and scripts meet them: what they print, and their exit codes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from control_plane.cli.main import app
from control_plane.settings import Settings
from control_plane.templates import Template
from tests.support.drift import drift, one_of_each
from tests.support.fleet import Fleet
from tests.support.program import settings_environment


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    one_of_each(tmp_path / "sample-templates")
    return settings.model_copy(update={"templates": tmp_path / "sample-templates"})


@pytest.fixture
def template(tmp_path: Path) -> Template:
    return one_of_each(tmp_path / "sample-templates-of-the-test")


class Cli:
    """Runs commands in a thread, because each has an event loop of its own."""

    def __init__(self, settings: Settings) -> None:
        self._environment = {name: value for name, value in settings_environment(settings).items() if name[:3] == "CP_"}

    async def run(self, *arguments: str, code: int) -> str:
        runner = CliRunner()
        done = await asyncio.to_thread(runner.invoke, app, arguments, env=self._environment)
        assert done.exit_code == code, done.output
        return done.stdout

    async def json(self, *arguments: str, code: int) -> Any:
        return json.loads(await self.run(*arguments, "--json", code=code))


async def test_a_fleet_from_doctor_to_repair_and_back(fleet: Fleet, settings: Settings) -> None:
    cli = Cli(settings)
    home = await fleet.add("acme", version=2)
    await fleet.add("twin", "database", version=2)
    assert await cli.run("doctor", code=0) == "Nothing is wrong.\n"
    assert await cli.run("migrate", "repair", code=0) == "nothing to do: 2 homes are as their versions build them\n"

    await drift(fleet, home, "DROP INDEX {s}.tb_thing_by_name", "CREATE TABLE {s}.tb_extra (tenant_id uuid NOT NULL)")
    found = [each for each in await cli.json("doctor", code=1) if each["code"] == "structure"]
    assert found == [
        {
            "cluster": "main",
            "code": "structure",
            "object": "acme",
            "problem": "is not what version 2 of sample builds: the index tb_thing_by_name is missing; "
            "the table tb_extra is not in the template",
            "fix": "see: cp migrate repair --tenant acme",
            "fatal": True,
            "home": str(home.id),
            "isolation": "schema",
            "template": "sample",
            "version": 2,
            "differences": [
                {"kind": "index", "object": "tb_thing_by_name", "problem": "missing"}
                | dict.fromkeys(("aspect", "expected", "found")),
                {"kind": "table", "object": "tb_extra", "problem": "extra"}
                | dict.fromkeys(("aspect", "expected", "found")),
            ],
        }
    ]
    assert "see: cp migrate repair --tenant acme" in await cli.run("doctor", code=1)

    index = f"CREATE INDEX tb_thing_by_name ON {home.schema_name}.tb_thing USING btree (tenant_id, name)"
    assert (await cli.run("migrate", "repair", "--tenant", "acme", code=1)).splitlines() == [
        f"acme on main, schema home {home.id} at version 2 of sample: would run 3 statements",
        "  SET LOCAL ROLE cp_owner;",
        f"  {index};",
        "  SET LOCAL ROLE NONE;",
        "  left: the table tb_extra is not in the template: nothing that may hold data is dropped",
        "1 of 1 homes differ",
    ]
    done = await cli.json("migrate", "repair", "--home", str(home.id), "--apply", code=1)
    (repaired,) = done.pop("homes")
    assert done == {"compared": 1, "not_compared": []}
    assert repaired.pop("left") == [
        dict.fromkeys(("aspect", "expected", "found"))
        | {
            "kind": "table",
            "object": "tb_extra",
            "problem": "extra",
            "reason": "nothing that may hold data is dropped",
        }
    ]
    assert repaired == {
        "cluster": "main",
        "tenant": "acme",
        "home": str(home.id),
        "isolation": "schema",
        "template": "sample",
        "version": 2,
        "status": "repaired",
        "statements": ["SET LOCAL ROLE cp_owner", index, "SET LOCAL ROLE NONE"],
        "sqlstate": None,
        "error": None,
    }
    await drift(fleet, home, "DROP TABLE {s}.tb_extra")
    assert await cli.run("doctor", code=0) == "Nothing is wrong.\n"


async def test_what_nobody_can_notice_is_told_and_is_no_failure(fleet: Fleet, settings: Settings) -> None:
    home = await fleet.add("acme", version=2)
    await drift(fleet, home, "ALTER TABLE {s}.tb_part DROP COLUMN thing_id CASCADE")
    cli = Cli(settings)
    assert "left:" not in await cli.run("migrate", "repair", "--apply", code=0)
    (told,) = await cli.json("doctor", code=0)
    assert (told["fatal"], [each["aspect"] for each in told["differences"]]) == (False, ["order of columns"])
    assert (await cli.run("migrate", "repair", "--apply", code=0)).splitlines()[1:] == [
        "  left: the table tb_part: order of columns is tenant_id, id, weight, thing_id, not tenant_id, id, thing_id, "
        "weight: a column cannot be moved; who names the columns that he wants sees no difference",
        "1 of 1 homes differ",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tenant", "nobody"), "tenant_not_found"),
        (("--home", "00000000-0000-4000-8000-000000000000"), "home_not_found"),
        (("--home", "nonsense"), "valid UUID"),
        (("--tenant", "a", "--home", "00000000-0000-4000-8000-000000000000"), "exclude each other"),
    ],
)
async def test_what_cannot_be_named_is_refused(
    settings: Settings, fleet: Fleet, arguments: tuple[str, ...], said: str
) -> None:
    environment = settings_environment(settings) | {"COLUMNS": "200"}
    done = await asyncio.to_thread(CliRunner().invoke, app, ["migrate", "repair", *arguments], env=environment)
    assert done.exit_code == 2
    assert said in done.stderr
