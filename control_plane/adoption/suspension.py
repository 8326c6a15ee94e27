"""Out of the way of a legacy migration: what stands on a table, dropping our part of it, and making it anew."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.adoption.building import CHUNK, Listener, build, fill
from control_plane.adoption.catalog import adoption_sql
from control_plane.adoption.inspection import examine
from control_plane.adoption.mapping import build_mapping
from control_plane.adoption.work import Work, mapping_of, open_work
from control_plane.errors import AdoptionConflict, AdoptionRefused
from control_plane.pools.databases import Databases
from control_plane.registry import audit
from control_plane.registry.models import AdoptedTable

_DEPENDENTS = adoption_sql("dependents.sql")


@dataclass(frozen=True)
class Dependent:
    """Something that stands on a legacy table, directly (`depth` 1) or not. `suspended`: suspend drops it."""

    name: str
    kind: str
    owner: str
    suspended: bool
    depth: int
    stands_on: list[str]
    columns: list[str]  # of the legacy table; none when it stands on something in between


async def preflight(databases: Databases, name: str, table: str) -> list[Dependent]:
    """What would keep a migration of the legacy table from dropping or retyping columns."""
    async with open_work(databases, name) as work:
        return await dependents(work, work.table(table))


async def dependents(work: Work, table: AdoptedTable) -> list[Dependent]:
    rows = await work.connection.fetch(_DEPENDENTS, table.schema_name, table.table_name, work.ground.schema)
    return [
        Dependent(row["name"], row["kind"], row["owner"], row["ours"], row["depth"], row["stands_on"], row["columns"])
        for row in rows
    ]


async def suspend(databases: Databases, name: str, table: str, *, actor: str) -> list[Dependent]:
    """Drop the view of a table; the projection stays as it is, and can be read. Answers what still stands on the table.

    Raises `AdoptionRefused` when somebody else's view stands on ours.
    """
    async with open_work(databases, name) as work:
        row = work.table(table)
        if row.state not in ("active", "suspending", "suspended"):
            raise AdoptionConflict(f"{table} is {row.state}.", hint="Let that be finished first: cp adopt resume.")
        mapping = mapping_of(row)
        before = row.state
        await work.record(row, state="suspending")
        ground = work.ground
        try:
            async with work.connection.transaction():
                drop = f"DROP VIEW IF EXISTS {ground.qualified(mapping.view)} RESTRICT;"
                await work.connection.execute(ground.within([drop]))
        except BaseException:
            await work.record(row, state=before)
            raise
        await work.record(row, state="suspended")
        async with databases.registry.begin() as session:
            audit.record(session, actor, "adoption.suspend", adoption=name, table=table)
        return await dependents(work, row)


async def resume(
    databases: Databases, name: str, table: str, *, actor: str, chunk: int = CHUNK, listener: Listener | None = None
) -> list[str]:
    """Look at the table again, make the view of what it is now, and bring the projection up to date.

    Answers the columns that are withheld now. Raises `AdoptionRefused` when the key is gone.
    """
    async with open_work(databases, name) as work:
        row = work.table(table)
        if row.state == "active":
            return list(mapping_of(row).withheld)
        if row.state != "filling":
            await _plan_again(work, row)
            await build(work, row)
        await fill(work, row, chunk, listener)
        async with databases.registry.begin() as session:
            audit.record(session, actor, "adoption.resume", adoption=name, table=table)
        return list(mapping_of(row).withheld)


async def _plan_again(work: Work, row: AdoptedTable) -> None:
    before = mapping_of(row)
    keys = {row.table_name: [each.column for each in before.key]}
    found = (await examine(work.connection, row.schema_name, [row.table_name], keys=keys))[0]
    if found.report.problems:
        errors = [{"table": found.report.table, "problem": problem} for problem in found.report.problems]
        raise AdoptionRefused("The table cannot be adopted as it is now.", errors=errors)
    secret = {*found.report.secret_columns, *before.withheld}
    mapping = build_mapping(found.table, found.best_key, secret, row.confirmed)
    await work.record(row, mapping=mapping.model_dump(), state="building")
