"""What the lanes of a run have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import UUID

import asyncpg

from control_plane.isolation.extensions import install_extensions
from control_plane.migrator.explain import Explainer
from control_plane.migrator.link import Links
from control_plane.migrator.pace import Pace
from control_plane.migrator.plan import DueHome
from control_plane.migrator.reins import Reins
from control_plane.migrator.results import HomeResult, Paced, StepProgress
from control_plane.migrator.steps import Steps
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.templates import Script, Template

_NOTE = "INSERT INTO tenancy.manifests (template, version, manifest) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"


class Job:
    """Where the run goes and how. `report` takes each outcome, once per home; `reins` hold back.

    `progress` hears of homes that are at a step beside a transaction, and of the pace.
    """

    def __init__(
        self,
        databases: Databases,
        template: Template,
        target: int,
        reins: Reins,
        report: Callable[[HomeResult], None],
        progress: Callable[[StepProgress | Paced], None] = lambda _: None,
    ) -> None:
        self.databases = databases
        self.template = template
        self.target = target
        self.lock_timeout = databases.settings.lock_timeout
        self.statement_timeout = databases.settings.migrate_statement_timeout
        self.reins = reins
        self.report = report
        self.progress = progress
        self.steps = Steps(template, reins, databases.settings.backfill_share)
        self.explainer = Explainer()
        self.links = Links(databases, self._prepare)
        self._paces: dict[UUID, Pace] = {}
        self._scripts: dict[tuple[int, int], Script] = {}

    def script(self, version: int, target: int) -> Script:
        """The next stage from `version` on the way to `target`."""
        key = (version, target)
        if key not in self._scripts:
            self._scripts[key] = self.template.stages(version, target)[0]
        return self._scripts[key]

    def target_of(self, home: DueHome) -> int:
        """How far `home` goes, which a pin may have shortened since the plan."""
        return min(home.target, self.reins.pins.get(home.home_id, home.target))

    def pace(self, cluster: Cluster, ceiling: int) -> Pace:
        """The cluster's, which later waves go on with."""
        return self._paces.setdefault(cluster.id, Pace(ceiling))

    async def _prepare(self, connection: asyncpg.Connection) -> None:
        """What the homes of a database share: else each would wait for the transaction of the one that brings it."""
        await install_extensions(connection, self.template)
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{int(self.lock_timeout * 1000)}ms'")
            for stage in self.template.stages(1, self.target):
                await connection.execute(_NOTE, self.template.name, stage.to_version, json.dumps(stage.manifest))
