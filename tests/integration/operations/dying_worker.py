"""A worker that kills itself at a moment of a run: `dying_worker.py OPTIONS` with JSON options.

It is told when by its argument and patches what happens then, so the product needs no hook for tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from control_plane.migrator import run as migration
from control_plane.migrator.ledger import Ledger
from control_plane.operations.engine import Operations
from control_plane.operations.timing import Timing
from control_plane.pools.databases import Databases
from control_plane.registry import runs
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings
from control_plane.templates import Templates

# What the worker does last, or dies before: an owner, and the name of a function of his.
MOMENTS: dict[str, tuple[Any, str, str]] = {
    "planned": (migration, "examine", "before"),
    "released": (migration._Run, "_release", "after"),
    "recorded": (Ledger, "plan", "after"),
    "first home": (migration._Run, "_report", "before"),
    "first outcome": (Ledger, "flush", "after"),
    "end": (runs, "finish_run", "before"),
}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _deadly(owner: Any, name: str, when: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(owner, name)

    def dying(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            _die()
        return function(*arguments, **options)

    async def dying_after(*arguments: Any, **options: Any) -> Any:
        idle = name == "flush" and not arguments[0]._waiting
        result = await function(*arguments, **options)
        if not idle:
            _die()
        return result

    return dying if when == "before" else dying_after


async def main() -> None:
    options = json.loads(sys.argv[1])
    owner, name, when = MOMENTS[options["moment"]]
    setattr(owner, name, _deadly(owner, name, when))
    settings = Settings.model_validate(options["settings"])
    databases = Databases(options["registry"], SecretBox(options["key"]), settings)
    operations = Operations(databases, Templates.load(settings.templates), timing=Timing(**options["timing"]))
    await operations.run_worker(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main())
