"""What is wrong with a cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a cluster; the service does not start on a fatal one."""

    code: str
    object: str
    problem: str
    fix: str
    fatal: bool = True
