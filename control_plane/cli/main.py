"""The program's command tree. `cp` and `control-plane` are the same program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

# Command → module of this package, and what in it: a function, or a group of commands.
COMMANDS = {
    "dev": "dev:dev",
    "init": "init:init",
    "serve": "serve:serve",
    "worker": "worker:worker",
    "cluster": "cluster:app",
    "tenant": "tenant:app",
    "adopt": "adopt:app",
    "cutover": "cutover:app",
    "template": "template:app",
    "migrate-all": "migrate:migrate_all_command",
    "migrate": "migrate_runs:app",
    "fleet": "fleet:app",
    "deprecations": "deprecations:deprecations",
    "token": "token:app",
    "env": "env:env",
    "doctor": "doctor:doctor",
    "drift": "drift:drift",
}


class Commands(Mapping[str, Any]):
    """The commands by name. A module is imported when its command is asked for: one need not wait for all others."""

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = COMMANDS[name].partition(":")
        found = getattr(import_module(f"control_plane.cli.{module}"), attribute)
        if not isinstance(found, typer.Typer):
            only = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            only.command(name)(found)
            found = only
        command = typer.main.get_command(found)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Program(TyperGroup):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = Commands()  # type: ignore[assignment]


app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A control plane for multi-tenant PostgreSQL: onboard tenants, serve them, release to all of them.",
)


@app.callback()
def _program() -> None:
    """Makes the application a group although no command is registered on it."""
