"""`cp worker`: carries on what a request has begun."""

from __future__ import annotations

from control_plane.cli.run import run
from control_plane.cli.serve import log_to_stderr, stop_on_signals
from control_plane.service import open_control_plane
from control_plane.settings import Settings


def worker() -> None:
    """Run operations in the background; any number of workers may run, on any machine."""

    async def work(settings: Settings) -> None:
        log_to_stderr(settings)
        with stop_on_signals() as stop:
            async with open_control_plane(settings) as plane:
                await plane.require_safe_posture()
                await plane.operations.run_worker(stop)

    run(work)
