"""`control-plane adopt` and `control-plane cutover` as processes: every example of their pages, and their JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from typer.testing import CliRunner, Result

from control_plane.adoption import applying, planning
from control_plane.adoption.planning import PlanRequest
from control_plane.cli.main import app
from control_plane.pools.databases import Databases
from tests.support.consoles import Step, read_blocks, read_steps, run_psql
from tests.support.legacy import Legacy, create_legacy
from tests.support.program import settings_environment
from tests.support.servers import Server

PATTERNS = Path(__file__).resolve().parents[2] / "docs" / "patterns"
ADOPTING = PATTERNS / "24-adopting-a-database.md"
MOVING = PATTERNS / "23-moving-from-an-orm.md"


@pytest_asyncio.fixture
async def shop(server: Server, installation_id: UUID) -> Legacy:
    """The database of the page, with its ORM's role."""
    (schema,) = read_blocks(ADOPTING, "text")
    return await create_legacy(server, installation_id, schema)


@pytest_asyncio.fixture
async def adopted(databases: Databases, shop: Legacy) -> Legacy:
    """The same, adopted as `shop`."""
    await planning.plan(databases, PlanRequest("shop", shop.dsn, tables=["customers", "orders"]), actor="tests")
    await applying.apply(databases, "shop", actor="tests")
    return shop


@pytest.fixture
def cli(databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli(settings_environment(databases.settings))


class Cli:
    """The program within this process: a page has twenty commands, and each would start Python anew."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env=self.environment)

    def page(self, page: Path, shop: Legacy) -> None:
        """Run every command of a page and compare what it prints."""
        variables = {"LEGACY": shop.dsn, "ORM": shop.orm_dsn}
        for each in read_steps(page):
            command, output = (text.replace("shop_orm", shop.orm_role) for text in (each.command, each.output))
            step = Step(command, each.code, output)
            program, *arguments = step.words(variables)
            if program == "psql":
                code, printed = run_psql(arguments)
            else:
                result = self(*arguments)
                code, printed = result.exit_code, result.output
            assert code == step.code, f"$ {step.command}\n{printed}"
            step.check(printed)


def test_the_page_on_adoption_does_what_it_says(cli: Cli, shop: Legacy) -> None:
    before = shop.dump("--schema=public", "--schema-only", "--table=customers")
    cli.page(ADOPTING, shop)
    assert shop.dump("--schema=public", "--schema-only", "--table=customers") == before
    assert "CREATE VIEW" in Path("shop.adoption.sql").read_text()


def test_the_page_on_moving_from_an_orm_does_what_it_says(cli: Cli, adopted: Legacy) -> None:
    cli.page(MOVING, adopted)


def test_the_commands_as_processes(shop: Legacy, databases: Databases, tmp_path: Path) -> None:
    """What a script sees: exit codes, results on stdout, progress and errors on stderr."""
    environment = settings_environment(databases.settings)

    def run(*arguments: str, **more: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "control_plane", "adopt", *arguments],
            cwd=tmp_path, env=environment | more, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    code, out, err = run("plan", "shop", CP_ADOPT_DSN=shop.dsn)
    assert (code, out) == (2, "")
    assert "table: public.imports, problem: no usable key" in err
    assert run("plan", "shop", "--table", "orders", CP_ADOPT_DSN=shop.dsn)[0] == 0
    code, out, err = run("apply", "shop", "--chunk", "40")
    assert (code, err.splitlines()) == (
        0,
        ["public.orders: 40 rows", "public.orders: 80 rows", "public.orders: 100 rows, complete"],
    )
    assert "shop: active" in out
    assert run("uninstall", "shop", "--yes") == (0, "shop is removed.\n", "")


def test_everything_is_there_as_json_and_no_password_ever(cli: Cli, shop: Legacy) -> None:
    role = shop.orm_role
    printed: list[str] = []

    def ask(*arguments: str, code: int = 0) -> Any:
        result = cli(*arguments, "--json")
        printed.append(result.output)
        assert result.exit_code == code, result.output
        return json.loads(result.stderr if code == 2 else result.stdout)

    assert [each["table"] for each in ask("adopt", "inspect", shop.dsn, code=1)] == [
        "public.customers",
        "public.imports",
        "public.orders",
    ]
    refused = ask("adopt", "plan", "shop", shop.dsn, code=2)
    assert (refused["code"], [each["table"] for each in refused["errors"]]) == ("adoption_refused", ["public.imports"])
    planned = ask("adopt", "plan", "shop", shop.dsn, "--table", "customers", "--reader", role, "--out", "plan.json")
    assert planned["tables"][0]["withheld"] == ["password_hash"]
    assert json.loads(Path("plan.json").read_text())["sql"] == planned["sql"]
    assert ask("adopt", "status", "shop")["state"] == "planned"
    assert ask("adopt", "check", "shop", code=2)["code"] == "adoption_conflict"
    assert ask("adopt", "apply", "shop")["tables"][0]["rows"] == 100
    assert ask("adopt", "check", "shop")[0]["missing"] == 0
    assert ask("adopt", "sync", "shop")[0]["rows"] == 100
    assert ask("adopt", "preflight", "shop", "customers")[0]["suspended"] is True
    assert ask("adopt", "suspend", "shop", "customers") == []
    assert ask("adopt", "check", "shop", code=1)[0]["state"] == "suspended"
    assert ask("adopt", "resume", "shop", "customers")["withheld"] == ["password_hash"]
    started = ask("cutover", "start", "shop", "customer", "--table", "customers", "--orm-role", role)
    assert (started["entity"]["stage"], started["shadow"]["orm_rows"]) == ("shadow", 100)
    assert ask("cutover", "check", "shop", "customer")["shadow"]["fields"] == {}
    assert ask("cutover", "advance", "shop", "customer")["entity"]["stage"] == "views"
    assert ask("adopt", "uninstall", "shop", "--yes", code=2)["code"] == "adoption_conflict"
    assert ask("cutover", "back", "shop", "customer")["entity"]["stage"] == "shadow"
    assert ask("cutover", "back", "shop", "customer")["entity"]["stage"] == "orm"
    assert [each["to_stage"] for each in ask("cutover", "status", "shop", "customer")["moves"]] == [
        "shadow",
        "views",
        "shadow",
        "orm",
    ]
    assert [each["name"] for each in ask("adopt", "status")] == ["shop"]
    assert ask("adopt", "uninstall", "shop", "--yes")["state"] == "removed"
    assert ask("adopt", "status", "shop", code=2)["code"] == "adoption_not_found"
    password = shop.dsn.partition("://")[2].partition("@")[0].partition(":")[2]
    assert password
    assert password not in "".join(printed)
