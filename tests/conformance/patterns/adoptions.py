"""A legacy database that is adopted, and what is found in it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from control_plane.adoption import applying, inspection, planning
from control_plane.adoption.planning import PlanRequest
from control_plane.adoption.records import AdoptionRecord
from control_plane.pools.databases import Databases
from control_plane.registry import adoptions
from tests.support.legacy import Legacy

ACTOR = "tests"

CUSTOMER = UUID("ffbc4675-f864-e0e9-aab8-bdf7a0437010")  # number 1


async def adopt(databases: Databases, legacy: Legacy, **request: Any) -> AdoptionRecord:
    await planning.plan(databases, PlanRequest("shop", legacy.dsn, **request), actor=ACTOR)
    return await applying.apply(databases, "shop", actor=ACTOR, chunk=7)


async def report(legacy: Legacy, table: str) -> inspection.TableReport:
    return (await inspection.inspect(legacy.dsn, "public", [table]))[0]


async def adoption_id(databases: Databases) -> UUID:
    async with databases.registry() as session:
        return (await adoptions.by_name(session, "shop")).id
