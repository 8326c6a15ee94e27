"""`cp adopt plan`: decide how tables are adopted, record it, and write it down to be read before anything happens."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adoption.building import table_ddl
from control_plane.adoption.ddl import schema_ddl
from control_plane.adoption.inspection import Findings, TableReport, examine
from control_plane.adoption.link import lock_adoption, open_legacy
from control_plane.adoption.mapping import Mapping, build_mapping
from control_plane.adoption.work import ground_of
from control_plane.errors import AdoptionConflict, AdoptionRefused, InvalidInput
from control_plane.isolation.names import installation_prefix
from control_plane.pools.databases import Databases
from control_plane.registry import adoptions, audit
from control_plane.registry.conflicts import domain_errors
from control_plane.registry.installation import installation_id
from control_plane.registry.models import AdoptedTable, Adoption

_TITLE = """\
-- What `cp adopt apply` runs in the legacy database, the schema and each table in a transaction of its own, before it
-- fills the projections. `cp adopt uninstall` takes away exactly this. No legacy object is altered; the grants at the
-- head of each table are all that it notices."""


@dataclass(frozen=True)
class PlanRequest:
    """`tables`: all of the schema when None. `confirm`: secret columns to show, as table.column."""

    name: str
    dsn: str | None = None  # the recorded one when absent
    schema: str = "public"
    tables: Sequence[str] | None = None
    into: str | None = None  # schema of the new objects; "adoption" when absent
    confirm: Sequence[str] = ()
    keys: MappingOf[str, Sequence[str]] = field(default_factory=dict)  # table to key columns
    readers: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """What `apply` will do. `sql` is what it runs; filling the projections comes after that."""

    name: str
    schema: str
    mappings: list[Mapping]
    reports: list[TableReport]
    sql: str

    def document(self) -> dict[str, Any]:
        """For a file or a script."""
        return {
            "name": self.name,
            "schema": self.schema,
            "tables": [mapping.model_dump() for mapping in self.mappings],
            "notes": {report.table: report.notes for report in self.reports if report.notes},
            "missing_indexes": [statement for report in self.reports for statement in report.missing_indexes],
            "sql": self.sql,
        }


async def plan(databases: Databases, request: PlanRequest, *, actor: str) -> Plan:
    """Read the legacy tables and record what would be made of them; nothing changes there.

    Planning again replaces a plan that was not applied. On an applied adoption it adds tables and confirms columns.
    Raises `AdoptionRefused` naming every table that cannot be adopted, `AdoptionConflict`, `InvalidInput`.
    """
    async with databases.registry() as session:
        known = await adoptions.find(session, request.name)
        installation = await installation_id(session)
        recorded = {row.table_name: row for row in await adoptions.tables(session, known.id)} if known else {}
    adoption = known or _new_adoption(request, installation_prefix(installation))
    dsn = request.dsn or (databases.box.open(known.dsn) if known else None)
    if dsn is None:
        raise InvalidInput("A new adoption needs the connection string of the legacy database.")
    fresh = adoption.state == "planned"
    if fresh:
        adoption.schema_name, adoption.readers = request.into or "adoption", list(request.readers)
        recorded = {}
    else:
        _require_addition(adoption, request)
    async with open_legacy(dsn) as connection:
        await lock_adoption(connection, adoption.id)
        await _require_place(connection, adoption, request.schema)
        keys = {name: [each["column"] for each in row.mapping["key"]] for name, row in recorded.items()}
        found = await examine(connection, request.schema, _chosen(request, fresh), keys={**keys, **request.keys})
    _require_usable(found)
    confirmed = _confirmed(request, found, recorded)
    rows = [_row(adoption, each, confirmed[each.table.name], recorded.get(each.table.name)) for each in found]
    adoption.dsn = databases.box.seal(dsn)
    async with databases.registry.begin() as session:
        await _store(session, adoption, rows, fresh)
        audit.record(session, actor, "adoption.plan", adoption=adoption.name, tables=[row.table_name for row in rows])
    ground = ground_of(adoption)
    mappings = [Mapping.model_validate(row.mapping) for row in rows]
    sql = "\n\n".join([_TITLE, schema_ddl(ground), *(table_ddl(ground, mapping) for mapping in mappings)])
    return Plan(adoption.name, adoption.schema_name, mappings, [each.report for each in found], sql)


def _new_adoption(request: PlanRequest, prefix: str) -> Adoption:
    identity = uuid4()
    return Adoption(
        id=identity,
        name=request.name,
        schema_name=request.into or "adoption",
        reader_role=f"{prefix}_a_{identity.hex[:12]}",
        writer_role=f"{prefix}_aw_{identity.hex[:12]}",
        readers=list(request.readers),
        state="planned",
    )


def _chosen(request: PlanRequest, fresh: bool) -> list[str] | None:
    if fresh:
        return None if request.tables is None else list(request.tables)
    named = [*(request.tables or ()), *request.keys, *(each.rpartition(".")[0] for each in request.confirm)]
    return list(dict.fromkeys(named))


def _require_addition(adoption: Adoption, request: PlanRequest) -> None:
    if adoption.state != "active":
        raise AdoptionConflict(f"The adoption is {adoption.state}.", hint="Let that be finished first.")
    if request.into not in (None, adoption.schema_name):
        raise InvalidInput(f"The adoption lives in schema {adoption.schema_name} already.")
    if request.readers:
        raise InvalidInput("Readers are chosen with the first plan.")
    if not (request.tables or request.confirm or request.keys):
        raise InvalidInput(
            "The plan is applied.", hint="Name what should be added or changed: --table, --confirm-column."
        )


async def _require_place(connection: asyncpg.Connection, adoption: Adoption, legacy: str) -> None:
    """The schema is new or ours, and the readers exist."""
    if adoption.schema_name == legacy or adoption.schema_name.startswith("pg_"):
        raise InvalidInput(
            f"The new objects cannot live in schema {adoption.schema_name}.", hint="Choose another: --into."
        )
    query = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = $1"
    owner = await connection.fetchval(query, adoption.schema_name)
    if owner not in (None, adoption.reader_role):
        raise AdoptionRefused(
            f"There is a schema {adoption.schema_name} already, and it belongs to {owner}.",
            hint="Choose another one: --into.",
        )
    for role in adoption.readers:
        if not await connection.fetchval("SELECT to_regrole(quote_ident($1)) IS NOT NULL", role):
            raise InvalidInput(f"There is no role {role}.")


def _require_usable(found: Sequence[Findings]) -> None:
    if not found:
        raise AdoptionRefused("There is no table to adopt.")
    errors = [{"table": each.report.table, "problem": problem} for each in found for problem in each.report.problems]
    if errors:
        raise AdoptionRefused(
            "Not every table can be adopted.", errors=errors, hint="Leave those out (--table), or choose a key (--key)."
        )


def _confirmed(
    request: PlanRequest, found: Sequence[Findings], recorded: MappingOf[str, AdoptedTable]
) -> dict[str, set[str]]:
    """The confirmed columns of each table, those of earlier plans among them."""
    confirmed = {
        each.table.name: set(row.confirmed) if (row := recorded.get(each.table.name)) else set() for each in found
    }
    for given in request.confirm:
        for each in found:
            column = given.removeprefix(f"{each.table.name}.")
            if column != given and each.table.column(column):
                confirmed[each.table.name].add(column)
                break
        else:
            raise InvalidInput(f"There is no column {given} in the plan.", hint="Name it as table.column.")
    return confirmed


def _row(adoption: Adoption, found: Findings, confirmed: set[str], before: AdoptedTable | None) -> AdoptedTable:
    table, key = found.table, found.best_key
    secret = {*found.report.secret_columns, *(before.mapping["withheld"] if before else ())}
    if hidden := [name for name in key.columns if name in secret - confirmed]:
        names = ", ".join(f"{table.name}.{name}" for name in hidden)
        raise AdoptionRefused(
            f"The key of {table.name} is a column that looks like a secret: {names}.",
            hint="Confirm it (--confirm-column), or choose another key (--key).",
        )
    if before and before.state not in ("active", "planned"):
        raise AdoptionConflict(f"{table.name} is {before.state}.", hint="Resume it first: cp adopt resume.")
    return AdoptedTable(
        adoption_id=adoption.id,
        schema_name=table.schema,
        table_name=table.name,
        mapping=build_mapping(table, key, secret, confirmed).model_dump(),
        confirmed=sorted(confirmed),
        state="planned",
        cursor=None,
        rows=0,
    )


async def _store(session: AsyncSession, adoption: Adoption, rows: Sequence[AdoptedTable], fresh: bool) -> None:
    if fresh:
        await session.execute(delete(AdoptedTable).where(AdoptedTable.adoption_id == adoption.id))
    with domain_errors():  # of two first plans at the same time
        await session.merge(adoption)
        await session.flush()
    others = {row.mapping["view"]: row.schema_name for row in await adoptions.tables(session, adoption.id)}
    for row in rows:
        if others.get(row.mapping["view"], row.schema_name) != row.schema_name:
            raise AdoptionRefused(
                f"Tables of two schemas would share the view {row.mapping['view']}.", hint="Make a second adoption."
            )
        await session.merge(row)
