"""`migrate-all`: plans which homes are behind, and brings each to the target with one message."""

from control_plane.migrator.deprecations import DeprecationUse, deprecations
from control_plane.migrator.options import Options
from control_plane.migrator.plan import DueHome, Group, Plan, Unreached
from control_plane.migrator.policy import Policy, read_policy
from control_plane.migrator.results import (
    Event,
    HomeResult,
    Paced,
    Planned,
    RunResult,
    Started,
    StepProgress,
    Touched,
    Waiting,
    WaveBegun,
)
from control_plane.migrator.run import migrate_all, plan_migration, plan_waves
from control_plane.migrator.versions import VersionCount, fleet_versions
from control_plane.migrator.waves import Wave

__all__ = [
    "DeprecationUse",
    "DueHome",
    "Event",
    "Group",
    "HomeResult",
    "Options",
    "Paced",
    "Plan",
    "Planned",
    "Policy",
    "RunResult",
    "Started",
    "StepProgress",
    "Touched",
    "Unreached",
    "VersionCount",
    "Waiting",
    "Wave",
    "WaveBegun",
    "deprecations",
    "fleet_versions",
    "migrate_all",
    "plan_migration",
    "plan_waves",
    "read_policy",
]
