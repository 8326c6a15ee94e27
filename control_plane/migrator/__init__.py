"""`migrate-all`: plans which homes are behind, and brings each to the target with one message."""

from control_plane.migrator.deprecations import DeprecationUse, deprecations
from control_plane.migrator.plan import DueHome, Group, Plan, Unreached
from control_plane.migrator.results import Event, HomeResult, Planned, RunResult, Touched
from control_plane.migrator.run import Options, migrate_all, plan_migration
from control_plane.migrator.versions import VersionCount, fleet_versions

__all__ = [
    "DeprecationUse",
    "DueHome",
    "Event",
    "Group",
    "HomeResult",
    "Options",
    "Plan",
    "Planned",
    "RunResult",
    "Touched",
    "Unreached",
    "VersionCount",
    "deprecations",
    "fleet_versions",
    "migrate_all",
    "plan_migration",
]
