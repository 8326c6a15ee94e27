"""The clock of durable operations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """All in seconds. A process is taken for dead after `silence`, which must be several heartbeats."""

    heartbeat: float = 2.0
    silence: float = 6.0
    poll: float = 2.0  # the worker's look for jobs that became due, which nothing announces
    repair: float = 5.0  # between two looks for jobs of dead workers
    look: float = 0.2  # between two looks at an operation that another process runs
    grace: float = 5.0  # that running work gets when its process stops
    longest: float = 60.0  # between two attempts
    drain: float = 30.0  # that the homes in flight of a run get when its worker stops
