"""`cp env`: what an application needs to join this installation."""

from __future__ import annotations

import shlex

import typer

from control_plane.cli.run import run
from control_plane.service import open_control_plane
from control_plane.settings import Settings


def env() -> None:
    """Print the settings with which an application joins this installation, for: eval "$(cp env)"."""

    async def work(settings: Settings) -> dict[str, str]:
        async with open_control_plane(settings) as plane:
            keys = {"CP_SECRET_KEY": plane.settings.secret_key, "CP_SIGNING_KEY": plane.settings.signing_key}
            given = {name: key.get_secret_value() for name, key in keys.items() if key is not None}
            return {"CP_DATABASE_URL": plane.databases.registry_dsn, **given}

    for name, value in run(work).items():
        typer.echo(f"export {name}={shlex.quote(value)}")
