"""A process that onboards or deletes a tenant and kills itself at a step.

It is told where by its options and patches the step itself, so the product needs no hook for tests.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from typing import Any

from control_plane.operations import runner
from control_plane.operations.engine import NewTenant, Operations
from control_plane.operations.timing import Timing
from control_plane.pools.databases import Databases
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings
from control_plane.templates import Templates
from control_plane.tenants.steps import Plan, Record, Step, Work


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _deadly(step: Step, when: str) -> Step:
    """The step that dies before its effect, after it, or is stopped there, as a paused machine would be."""

    async def run(work: Work) -> Record:
        if when == "before":
            _die()
        if when == "stop before":
            os.kill(os.getpid(), signal.SIGSTOP)
        record = await step.run(work)
        if when == "after":
            _die()
        if when == "stop after":
            os.kill(os.getpid(), signal.SIGSTOP)
        return record

    return dataclasses.replace(step, run=run)


def _failing(step: Step) -> Step:
    async def run(work: Work) -> Record:
        await step.run(work)
        raise RuntimeError("this step cannot succeed")

    return dataclasses.replace(step, run=run)


def patch(kind: str, name: str, when: str) -> None:
    plan: Plan = runner.PLANS[kind]
    steps = tuple(_deadly(step, when) if step.name == name else step for step in plan.steps)
    undo = plan.undo
    if undo is not None and undo.name == name:
        steps = tuple(_failing(step) if step is plan.steps[-1] else step for step in steps)
        undo = _deadly(undo, when)
    runner.PLANS[kind] = dataclasses.replace(plan, steps=steps, undo=undo)


async def main(_: Callable[[object], None], options: dict[str, Any]) -> None:
    settings = Settings.model_validate(options["settings"])
    databases = Databases(options["registry"], SecretBox(options["key"]), settings)
    operations = Operations(databases, Templates.load(settings.templates), timing=Timing(**options["timing"]))
    patch(options["kind"], options["step"], options["when"])
    if options["kind"] == "delete":
        await operations.delete_tenant(options["slug"], actor="crash", wait=60)
    else:
        new = NewTenant(options["slug"], "Crash", options["isolation"])
        await operations.create_tenant(new, actor="crash", wait=60)
    await operations.aclose()
    await databases.aclose()
