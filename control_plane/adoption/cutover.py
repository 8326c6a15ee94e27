"""The way of an entity from an ORM to views and functions, one recorded stage at a time.

    orm        nothing of ours serves it
    shadow     view and functions exist; what the ORM reads is compared with the view
    views      the application may read the view and call the functions, and the ORM still writes
    functions  the ORM's role cannot write any more; it reads as before
    done       there is no way back

A move is recorded before it is made, so that one that broke off can be repeated, or undone by going back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingOf
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any
from uuid import uuid4

from control_plane.adoption.building import walk
from control_plane.adoption.catalog import Table, read_tables
from control_plane.adoption.keeping import Drift, drift_of
from control_plane.adoption.privileges import read_privileges, restore, revoke
from control_plane.adoption.records import EntityRecord, entity_record
from control_plane.adoption.shadow import ShadowReport, compare
from control_plane.adoption.work import Work, open_work
from control_plane.adoption.writing import (
    close_to_application,
    install_writers,
    open_to_application,
    remove_writers,
)
from control_plane.errors import AdoptionConflict, CutoverRefused, InvalidInput
from control_plane.pools.databases import Databases
from control_plane.registry import adoptions, audit
from control_plane.registry.models import STAGES, AdoptedEntity, AdoptedEntityMove, AdoptedTable

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class NewEntity:
    """`orm_query`: what the ORM reads, the table when absent; `orm_keys`: its columns to keys of the document."""

    name: str
    table: str
    orm_role: str
    app_role: str | None = None  # calls the functions; the ORM's role when absent
    orm_query: str | None = None
    orm_keys: MappingOf[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """An entity after a command. `shadow` and `drift` are there when they were looked at; `notes` are for people."""

    entity: EntityRecord
    shadow: ShadowReport | None = None
    drift: Drift | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Move:
    at: Any
    actor: str
    from_stage: str
    to_stage: str
    report: dict[str, Any] | None


async def start(databases: Databases, adoption: str, new: NewEntity, *, actor: str) -> Outcome:
    """Bring an entity to `shadow`: its functions are made, nobody may call them, and the first comparison is reported.

    May be repeated. Raises `InvalidInput`, `AdoptionConflict` when the entity is further already.
    """
    if not _NAME.fullmatch(new.name):
        raise InvalidInput("An entity's name has lower-case letters, digits and underscores, 40 at most.")
    async with open_work(databases, adoption) as work:
        row = work.table(new.table)
        _require_active(row)
        for role in (new.orm_role, new.app_role or new.orm_role):
            if not await work.connection.fetchval("SELECT to_regrole(quote_ident($1)) IS NOT NULL", role):
                raise InvalidInput(f"There is no role {role}.")
        entity = await _entity(work, row, new)
        if entity.stage != "orm":
            if entity.stage == "shadow":
                return await _look(work, entity)
            raise AdoptionConflict(f"{new.name} is at stage {entity.stage} already.")
        await work.record(entity, moving_to="shadow")
        async with work.connection.transaction():
            await install_writers(work, entity)
        await _arrive(work, entity, "shadow", actor)
        outcome = await _look(work, entity)
        return Outcome(outcome.entity, outcome.shadow, outcome.drift, await _notes(work, entity))


async def check(databases: Databases, adoption: str, name: str) -> Outcome:
    """Compare the ORM's result with the view, and the projection with the table. Changes nothing."""
    async with open_work(databases, adoption) as work:
        entity = work.entity(name)
        _require_active(_row(work, entity))
        return await _look(work, entity)


async def status(databases: Databases, adoption: str, name: str) -> tuple[EntityRecord, list[Move]]:
    """Raises `AdoptionNotFound`."""
    async with databases.registry() as session:
        found = await adoptions.by_name(session, adoption)
        entity = await adoptions.entity(session, found.id, name)
        moves = [
            Move(each.at, each.actor, each.from_stage, each.to_stage, each.report)
            for each in await adoptions.moves(session, entity.id)
        ]
        return entity_record(entity), moves


async def advance(databases: Databases, adoption: str, name: str, *, actor: str) -> Outcome:
    """Go to the next stage.

    Raises `CutoverRefused` with the differences when the view shows anything else than what the ORM reads.
    """
    async with open_work(databases, adoption) as work:
        entity = work.entity(name)
        _require_active(_row(work, entity))
        following = dict(pairwise(STAGES)).get(entity.stage)
        if following is None:
            raise AdoptionConflict(f"{name} is done.")
        if following == "shadow":
            raise AdoptionConflict(f"{name} is with the ORM.", hint="Start with it: cp cutover start.")
        if entity.moving_to not in (None, following):
            raise AdoptionConflict(
                f"A move of {name} back to {entity.moving_to} broke off.", hint="Finish it: cp cutover back."
            )
        shadow = await compare(work, entity)
        if not shadow.equal:
            raise CutoverRefused(
                "The view does not show what the ORM reads.",
                errors=shadow.differences(),
                hint="Compare again after the mapping or the query is right: cp cutover check.",
            )
        await _FORWARD[following](work, entity)
        drift = await _follow(work, entity)
        await _arrive(work, entity, following, actor, shadow)
        return Outcome(entity_record(entity), shadow, drift)


async def back(databases: Databases, adoption: str, name: str, *, actor: str) -> Outcome:
    """Go to the stage before, or undo a move forward that broke off. Raises `CutoverRefused` when it is done."""
    async with open_work(databases, adoption) as work:
        entity = work.entity(name)
        position = STAGES.index(entity.stage)
        if entity.stage == "done":
            raise CutoverRefused(f"{name} is done, and there is no way back.")
        if entity.moving_to is not None and STAGES.index(entity.moving_to) > position:
            await _BACK[entity.moving_to](work, entity)
            await work.record(entity, moving_to=None)
            return Outcome(
                entity_record(entity), notes=[f"The move that broke off is undone; it is at {entity.stage}."]
            )
        if entity.stage == "orm":
            raise AdoptionConflict(f"{name} is with the ORM.")
        before = STAGES[position - 1]
        await work.record(entity, moving_to=before)
        await _BACK[entity.stage](work, entity)
        await _arrive(work, entity, before, actor)
        return Outcome(entity_record(entity))


async def _to_views(work: Work, entity: AdoptedEntity) -> None:
    await work.record(entity, moving_to="views")
    async with work.connection.transaction():
        await open_to_application(work, entity)


async def _to_functions(work: Work, entity: AdoptedEntity) -> None:
    table = await _legacy(work, entity)
    # A move that broke off may have taken the privileges already: what was recorded first is what there was.
    given = (entity.grants or {}).get("privileges")
    if given is None:
        given = await read_privileges(work.connection, table, entity.orm_role)
    await work.record(entity, moving_to="functions", grants={"privileges": given})
    try:
        async with work.connection.transaction():
            await revoke(work.connection, table, entity.orm_role, given)
    except CutoverRefused:
        await work.record(entity, moving_to=None, grants=None)
        raise


async def _to_done(work: Work, entity: AdoptedEntity) -> None:
    await work.record(entity, moving_to="done")


async def _from_shadow(work: Work, entity: AdoptedEntity) -> None:
    async with work.connection.transaction():
        await remove_writers(work, entity)


async def _from_views(work: Work, entity: AdoptedEntity) -> None:
    async with work.connection.transaction():
        await close_to_application(work, entity)


async def _from_functions(work: Work, entity: AdoptedEntity) -> None:
    given = (entity.grants or {}).get("privileges", [])
    async with work.connection.transaction():
        await restore(work.connection, await _legacy(work, entity), entity.orm_role, given)
    await work.record(entity, grants=None)


async def _from_done(work: Work, entity: AdoptedEntity) -> None:
    """That move does nothing to the database, so neither does its end."""


_FORWARD = {"views": _to_views, "functions": _to_functions, "done": _to_done}
_BACK = {"shadow": _from_shadow, "views": _from_views, "functions": _from_functions, "done": _from_done}


async def _arrive(
    work: Work, entity: AdoptedEntity, stage: str, actor: str, shadow: ShadowReport | None = None
) -> None:
    before = entity.stage
    await work.record(entity, stage=stage, moving_to=None)
    async with work.databases.registry.begin() as session:
        report = asdict(shadow) if shadow else None
        session.add(
            AdoptedEntityMove(entity_id=entity.id, actor=actor, from_stage=before, to_stage=stage, report=report)
        )
        audit.record(session, actor, "adoption.cutover", adoption=work.adoption.name, entity=entity.name, stage=stage)


async def _entity(work: Work, row: AdoptedTable, new: NewEntity) -> AdoptedEntity:
    """The recorded entity with the choices of `new`, or a new one at stage orm."""
    choices = {
        "orm_role": new.orm_role,
        "app_role": new.app_role or new.orm_role,
        "orm_query": new.orm_query,
        "orm_keys": dict(new.orm_keys),
    }
    known = work.entity_of(row)
    if known is not None:
        if known.name != new.name:
            raise AdoptionConflict(f"The table is entity {known.name} already.")
        if known.stage in ("orm", "shadow"):
            await work.record(known, **choices)
        return known
    if any(each.name == new.name for each in work.entities):
        raise AdoptionConflict(f"Another table is entity {new.name} already.")
    entity = AdoptedEntity(
        id=uuid4(),
        adoption_id=work.adoption.id,
        name=new.name,
        schema_name=row.schema_name,
        table_name=row.table_name,
        stage="orm",
        **choices,
    )
    async with work.databases.registry.begin() as session:
        session.add(entity)
    work.entities.append(entity)
    return entity


async def _look(work: Work, entity: AdoptedEntity) -> Outcome:
    shadow = await compare(work, entity)
    return Outcome(entity_record(entity), shadow, await drift_of(work, _row(work, entity)))


async def _follow(work: Work, entity: AdoptedEntity) -> Drift:
    """Bring the projection up to date, with what the last writers of the ORM have left."""
    row = _row(work, entity)
    await walk(work, row)
    return await drift_of(work, row)


async def _notes(work: Work, entity: AdoptedEntity) -> list[str]:
    table = await _legacy(work, entity)
    notes = []
    if table.owner == entity.orm_role:
        notes.append(
            f"{entity.orm_role} owns the table: at stage functions its writes are refused, but an owner could grant "
            "them to itself again."
        )
    if table.triggers:
        notes.append(
            f"Triggers ({', '.join(table.triggers)}) run as {work.ground.writer_role} when a function writes; grant it "
            "what they need."
        )
    return notes


async def _legacy(work: Work, entity: AdoptedEntity) -> Table:
    return (await read_tables(work.connection, entity.schema_name, [entity.table_name]))[0]


def _row(work: Work, entity: AdoptedEntity) -> AdoptedTable:
    return work.table(f"{entity.schema_name}.{entity.table_name}")


def _require_active(row: AdoptedTable) -> None:
    if row.state != "active":
        raise AdoptionConflict(
            f"{row.table_name} is {row.state}.", hint="Bring it back first: cp adopt resume, or cp adopt apply."
        )
