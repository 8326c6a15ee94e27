"""What is new to a fleet is held against the rules, and run once on rows that nobody keeps, before any home gets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from control_plane.migrator.plan import Plan
from control_plane.pools.databases import Databases
from control_plane.registry import template_versions
from control_plane.templates import Template
from control_plane.templates.release import refusal, require_clean

if TYPE_CHECKING:
    from control_plane.migrator.locks import VersionLocks


async def examine(databases: Databases, template: Template, plan: Plan) -> list[VersionLocks]:
    """The lock reports of the versions that `plan` would bring to a fleet for the first time; empty where none is new.

    The text of a view does not always tell which keys its documents have, nor that of a function what it locks. A first
    release has no readers yet. Raises `TemplateRefused`, and `ClusterUnavailable`.
    """
    if not plan.homes:
        return []
    async with databases.registry() as session:
        released = await template_versions.current(session, template)
    await require_clean(template, released or 0, plan.target)
    new = range((released or 0) + 1, plan.target + 1)
    if released is None or not new:
        return []
    from control_plane.migrator.rehearsal import rehearse  # with PostgreSQL's parser, which takes a moment

    rehearsed = await rehearse(databases, plan.homes[0].place.cluster, template, new)
    if rehearsed.findings:
        raise refusal(template, rehearsed.findings, " --scratch")
    return rehearsed.locks
