"""How a command runs: settings read, one event loop, failures printed once, exit codes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer
import uvloop
from pydantic import ValidationError

from control_plane.cli.output import print_error
from control_plane.errors import ConfigurationError, ControlPlaneError
from control_plane.settings import Settings

T = TypeVar("T")

FAILED = 2  # as for wrong usage: nothing was done
ACTOR = "cli"

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run(work: Callable[[Settings], Coroutine[Any, Any, T]], *, as_json: bool = False, **overrides: Any) -> T:
    """Run `work` with the settings of the environment; `overrides` that are not None take their place."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work(_settings(overrides)))
    except ControlPlaneError as error:
        print_error(error, as_json=as_json)
        raise typer.Exit(FAILED) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None


def _settings(overrides: dict[str, Any]) -> Settings:
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        # Never the values: a setting may be a secret.
        problems = [f"CP_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()]
        raise ConfigurationError("A setting is not valid.", details="; ".join(problems)) from None
