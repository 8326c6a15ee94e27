"""`cp adopt apply` and `cp adopt uninstall`: add what was planned, and take exactly that away again."""

from __future__ import annotations

from sqlalchemy import delete

from control_plane.adoption.building import CHUNK, Listener, build, fill
from control_plane.adoption.ddl import literal, schema_ddl
from control_plane.adoption.records import AdoptionRecord, get_adoption
from control_plane.adoption.work import Work, open_work
from control_plane.errors import AdoptionConflict, AdoptionRefused
from control_plane.pools.databases import Databases
from control_plane.registry import audit
from control_plane.registry.models import Adoption
from control_plane.templates.script import quote


async def apply(
    databases: Databases, name: str, *, actor: str, chunk: int = CHUNK, listener: Listener | None = None
) -> AdoptionRecord:
    """Make the schema, the views and the projections of the plan and fill them; goes on where an earlier one ended.

    Raises `AdoptionNotFound`, `AdoptionConflict` when a table has changed since it was planned, `AdoptionRefused`.
    """
    async with open_work(databases, name, states=("planned", "applying", "active")) as work:
        due = [table for table in work.tables if table.state in ("planned", "building", "filling")]
        if work.adoption.state == "active" and not due:
            return await get_adoption(databases, name)
        await work.record(work.adoption, state="applying")
        async with work.connection.transaction():
            await work.connection.execute(schema_ddl(work.ground))
        for table in due:
            if table.state != "filling":
                await build(work, table)
            await fill(work, table, chunk, listener)
        await work.record(work.adoption, state="active")
        async with databases.registry.begin() as session:
            audit.record(session, actor, "adoption.apply", adoption=name, tables=[row.table_name for row in due])
    return await get_adoption(databases, name)


async def uninstall(databases: Databases, name: str, *, actor: str) -> None:
    """Drop what the adoption added, all or nothing, then forget it.

    Raises `AdoptionNotFound`, `AdoptionConflict` while entities depend on it, `AdoptionRefused` when objects of others
    stand on ours.
    """
    async with open_work(databases, name, states=("planned", "applying", "active", "removing")) as work:
        if moved := [each.name for each in work.entities if each.stage != "orm" or each.moving_to is not None]:
            raise AdoptionConflict(
                f"These entities have left the ORM: {', '.join(moved)}.",
                hint="Take them back first: cp cutover back. What is done cannot be taken back.",
            )
        await work.record(work.adoption, state="removing")
        await _drop(work)
        async with databases.registry.begin() as session:
            await session.execute(delete(Adoption).where(Adoption.id == work.adoption.id))
            audit.record(session, actor, "adoption.uninstall", adoption=name)


async def _drop(work: Work) -> None:
    """Both roles are the adoption's own, so what belongs to them or was granted to them is what it has added."""
    ground, connection = work.ground, work.connection
    await _require_only_ours(work)
    async with connection.transaction():
        for role in (ground.writer_role, ground.reader_role):
            if await connection.fetchval("SELECT to_regrole(quote_ident($1)) IS NOT NULL", role):
                await connection.execute(f"DROP OWNED BY {quote(role)} RESTRICT; DROP ROLE {quote(role)}")


async def _require_only_ours(work: Work) -> None:
    """PostgreSQL would say that something depends on the schema; this says what."""
    strangers = await work.connection.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        f" WHERE n.nspname = $1 AND pg_get_userbyid(n.nspowner) = {literal(work.ground.reader_role)}"
        " AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relowner <> n.nspowner ORDER BY 1",
        work.ground.schema,
    )
    if strangers:
        raise AdoptionRefused(
            f"The schema {work.ground.schema} holds objects of others.",
            details=", ".join(row["name"] for row in strangers),
            hint="Move or drop them first; nothing was done.",
        )
