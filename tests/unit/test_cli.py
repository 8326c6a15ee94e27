"""The command line without a database: help, usage, tokens, durations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from control_plane.cli import compared
from control_plane.cli.durations import parse_duration
from control_plane.cli.main import app
from control_plane.errors import InvalidInput
from control_plane.identity.verifier import build_verifier
from control_plane.settings import Settings

SIGNING_KEY = "a signing key of the tests, long enough"

COMMANDS = {
    (): ["dev", "init", "serve", "worker", "cluster", "tenant", "token", "migrate-all", "migrate", "doctor"],
    ("tenant",): ["create", "list", "show", "suspend", "resume", "delete"],
    ("cluster",): ["add", "list", "check", "drain"],
    ("fleet",): ["pin", "unpin", "pins", "--template", "--json", "Exit 1"],
    ("fleet", "pin"): ["--version", "--reason", "--expires", "180 days", "--json"],
    ("migrate",): ["status", "history", "explain", "watch", "pause", "resume", "abort", "join", "repair"],
    ("migrate", "repair"): ["Exit 0", "--tenant", "--home", "--apply", "--json"],
    ("migrate-all",): ["--halt-failures", "--halt-rate", "--approve", "--max-duration", "--config", "--plan"],
    ("template",): ["lint", "new", "list", "show"],
    ("template", "lint"): ["--version", "--scratch", "--json", "Exit 0"],
    ("template", "new"): ["--into", "CP_TEMPLATES"],
    ("dev",): ["--host", "--port"],
    ("serve",): ["--host", "--port", "--no-worker"],
    ("init",): ["--template-version", "--no-cluster", "--json"],
    ("token",): ["--tenant", "--platform", "--subject", "--role", "--scope", "--ttl", "revoke", "revocations"],
    ("token", "revoke"): ["--id", "--tenant", "--user", "--subject", "--before", "--expires", "--json"],
    ("tenant", "create"): ["--isolation", "--name", "--plan", "--label", "--cluster", "--template", "--version"],
    ("tenant", "list"): ["--status", "--isolation", "--version", "--cluster", "--json"],
    ("cluster", "add"): ["CP_CLUSTER_DSN", "--region", "--isolation", "--capacity"],
    ("doctor",): ["Exit 0", "--json"],
    ("drift",): ["Exit 0", "--resync", "--json"],
    ("adopt",): [
        "inspect",
        "plan",
        "apply",
        "status",
        "sync",
        "check",
        "preflight",
        "suspend",
        "resume",
        "uninstall",
    ],
    ("adopt", "plan"): [
        "CP_ADOPT_DSN",
        "--schema",
        "--table",
        "--into",
        "--confirm-column",
        "--key",
        "--reader",
        "--out",
    ],
    ("cutover",): ["orm → shadow → views → functions → done", "start", "status", "check", "advance", "back"],
    ("cutover", "start"): ["--table", "--orm-role", "--app-role", "--orm-query", "--map"],
}


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    monkeypatch.setenv("CP_HOME", str(tmp_path))
    monkeypatch.setenv("CP_SIGNING_KEY", SIGNING_KEY)
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_everything_that_there_is(cli: CliRunner, command: tuple[str, ...]) -> None:
    shown = cli.invoke(app, [*command, "--help"])
    assert shown.exit_code == 0
    for word in COMMANDS[command]:
        assert word in shown.output


def test_every_command_says_what_it_does() -> None:
    program = typer.main.get_command(app)
    for name, command in program.commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        for sub_name, sub_command in getattr(command, "commands", {}).items():
            assert sub_command.help, f"{name} {sub_name}"


@pytest.mark.parametrize("arguments", [["nonsense"], ["tenant", "show"], ["serve", "--port", "x"]])
def test_wrong_usage_exits_with_2(cli: CliRunner, arguments: list[str]) -> None:
    assert cli.invoke(app, arguments).exit_code == 2


def test_a_setting_that_is_not_valid_is_named_without_its_value(
    cli: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CP_PORT", "secret-value")
    shown = cli.invoke(app, ["tenant", "list"])
    assert shown.exit_code == 2
    assert "error: A setting is not valid. (configuration)" in shown.stderr
    assert "CP_PORT" in shown.stderr
    assert "secret-value" not in shown.output


def test_a_platform_token_needs_no_database(cli: CliRunner, tmp_path: Path) -> None:
    shown = cli.invoke(app, ["token", "--platform", "--scope", "tenants:read", "--subject", "ci", "--ttl", "15m"])
    assert shown.exit_code == 0, shown.output
    assert not (tmp_path / "postgres").exists()
    principal = build_verifier(Settings.model_validate({"signing_key": SIGNING_KEY})).verify(shown.stdout.strip())
    assert (principal.kind, principal.subject, principal.scopes) == ("platform", "ci", frozenset({"tenants:read"}))


def test_an_error_is_json_on_demand(cli: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CP_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    shown = cli.invoke(app, ["tenant", "list", "--json"])
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert json.loads(shown.stderr)["code"] == "configuration"  # CP_SECRET_KEY is missing
    monkeypatch.setenv("CP_SECRET_KEY", "a secret key of the tests, long enough")
    shown = cli.invoke(app, ["tenant", "list", "--json"])
    assert json.loads(shown.stderr)["code"] == "registry_unavailable"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "-1h", "1", "h", "1.5h", "1w", "1h30m", "１h"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_duration(text)


def test_a_comparison_tells_how_far_it_is_when_it_takes_longer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counting = compared.Counting()
    counting.show(5, 1, 2)
    monkeypatch.setattr(compared, "_SECONDS_BETWEEN_LINES", 0.0)
    counting.show(7, 2, 2)
    assert capsys.readouterr() == ("", "7 homes looked at, 2 of 2 databases\n")
