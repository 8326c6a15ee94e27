"""Row by row: does the view show what the ORM reads?"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from control_plane.adoption.ddl import literal
from control_plane.adoption.link import open_legacy
from control_plane.adoption.mapping import Mapping
from control_plane.adoption.work import Work, mapping_of
from control_plane.errors import InvalidInput
from control_plane.registry.models import AdoptedEntity
from control_plane.templates.script import quote

SAMPLE = 5  # keys that a difference shows
_PREFETCH = 500
_PAIRS = 50  # of one jsonb_build_object

Key = bytes  # the key's values as a JSON list, in UTF-8
Row = tuple[Key, str]


@dataclass
class Difference:
    """How many keys differ, and a few of them, each as the list of its values."""

    keys: int = 0
    samples: list[Any] = field(default_factory=list)

    def add(self, key: Key) -> None:
        self.keys += 1
        if len(self.samples) < SAMPLE:
            self.samples.append(json.loads(key))


@dataclass(frozen=True)
class ShadowReport:
    """`fields` maps each field that differs to its keys; only fields that the ORM reads are compared."""

    orm_rows: int
    view_rows: int
    only_in_orm: Difference
    only_in_view: Difference
    fields: dict[str, Difference]

    @property
    def equal(self) -> bool:
        return not (self.only_in_orm.keys or self.only_in_view.keys or self.fields)

    def differences(self) -> list[dict[str, Any]]:
        """One entry per kind of difference, for an error or a table."""
        named = {"(rows only the ORM sees)": self.only_in_orm, "(rows only the view shows)": self.only_in_view}
        named |= self.fields
        return [
            {"field": name, "keys": each.keys, "samples": each.samples} for name, each in named.items() if each.keys
        ]


async def compare(work: Work, entity: AdoptedEntity) -> ShadowReport:
    """Read both sides in one snapshot, each under its own role, in the order of the key.

    Rows are compared by a hash first; only when some differ are the documents read, to name the fields.
    Raises `InvalidInput` when the ORM's query has no key, `AdoptionRefused` when its role may not read.
    """
    mapping = mapping_of(work.table(f"{entity.schema_name}.{entity.table_name}"))
    async with _both_sides(work, entity) as (orm, view):
        documents, fields = await _orm_documents(orm, entity, mapping)
        key = [each.column for each in mapping.key]
        if missing := sorted(set(key) - set(fields)):
            raise InvalidInput(f"The ORM's query lacks the key: {', '.join(missing)}.", hint="Name its columns: --map.")
        shown = (
            f"SELECT {_object({name: f'data -> {literal(name)}' for name in fields})} AS d FROM {_view(work, mapping)}"
        )
        report = await _merge(_rows(orm, documents, key, "md5(d::text)"), _rows(view, shown, key, "md5(d::text)"), None)
        if report.equal:
            return report
        return await _merge(_rows(orm, documents, key, "d::text"), _rows(view, shown, key, "d::text"), fields)


@asynccontextmanager
async def _both_sides(
    work: Work, entity: AdoptedEntity
) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
    """Two connections that see the same state: the ORM's role on one, the adoption's reader on the other."""
    dsn = work.databases.box.open(work.adoption.dsn)
    async with AsyncExitStack() as stack:
        orm = await stack.enter_async_context(open_legacy(dsn))
        view = await stack.enter_async_context(open_legacy(dsn))
        await stack.enter_async_context(orm.transaction(isolation="repeatable_read", readonly=True))
        snapshot = await orm.fetchval("SELECT pg_export_snapshot()")
        await stack.enter_async_context(view.transaction(isolation="repeatable_read", readonly=True))
        await view.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
        await view.execute(f"SET LOCAL ROLE {quote(work.ground.reader_role)}")
        try:
            await orm.execute(f"SET LOCAL ROLE {quote(entity.orm_role)}")
        except asyncpg.InsufficientPrivilegeError as error:
            raise InvalidInput(
                f"The role of the connection string may not act as {entity.orm_role}.",
                hint=f"Make it a member: GRANT {entity.orm_role} TO …",
            ) from error
        await orm.execute(f"SET LOCAL search_path = {quote(entity.schema_name)}, public, pg_temp")
        yield orm, view


async def _orm_documents(
    connection: asyncpg.Connection, entity: AdoptedEntity, mapping: Mapping
) -> tuple[str, list[str]]:
    """A query of the documents that the ORM's rows amount to, as `d`, and the names of their fields."""
    columns = ", ".join(quote(each.column) for each in mapping.fields)
    table = f"{quote(mapping.source_schema)}.{quote(mapping.source_table)}"
    query = entity.orm_query or f"SELECT {columns} FROM {table}"
    statement = await connection.prepare(f"SELECT * FROM ({query}) AS q")
    names = [attribute.name for attribute in statement.get_attributes()]
    if unknown := sorted(set(entity.orm_keys) - set(names)):
        raise InvalidInput(f"The ORM's query has no column {', '.join(unknown)}.")
    renamed = {name: str(entity.orm_keys.get(name, name)) for name in names}
    pairs = {document_key: f"r -> {literal(name)}" for name, document_key in renamed.items()}
    documents = f"SELECT {_object(pairs)} AS d FROM (SELECT to_jsonb(q) AS r FROM ({query}) AS q) AS o"
    return documents, list(renamed.values())


def _view(work: Work, mapping: Mapping) -> str:
    return work.ground.qualified(mapping.view)


def _object(pairs: dict[str, str]) -> str:
    listed = [f"{literal(name)}, {value}" for name, value in pairs.items()]
    chunks = [", ".join(listed[start : start + _PAIRS]) for start in range(0, len(listed), _PAIRS)]
    return " || ".join(f"jsonb_build_object({chunk})" for chunk in chunks)


async def _rows(connection: asyncpg.Connection, documents: str, key: Sequence[str], content: str) -> AsyncIterator[Row]:
    listed = ", ".join(f"d -> {literal(name)}" for name in key)
    query = (
        f"SELECT convert_to(jsonb_build_array({listed})::text, 'UTF8') AS key, {content} AS content"
        f" FROM ({documents}) AS documents ORDER BY 1"
    )
    async for row in connection.cursor(query, prefetch=_PREFETCH):
        yield row["key"], row["content"]


async def _merge(orm: AsyncIterator[Row], view: AsyncIterator[Row], fields: Sequence[str] | None) -> ShadowReport:
    """Both come in the order of the key. `fields` = None when the contents are hashes."""
    report = ShadowReport(0, 0, Difference(), Difference(), {})
    orm_rows = view_rows = 0
    left, right = await anext(orm, None), await anext(view, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            report.only_in_orm.add(left[0])
            orm_rows, left = orm_rows + 1, await anext(orm, None)
        elif left is None or right[0] < left[0]:
            report.only_in_view.add(right[0])
            view_rows, right = view_rows + 1, await anext(view, None)
        else:
            for name in _differing(left[1], right[1], fields):
                report.fields.setdefault(name, Difference()).add(left[0])
            orm_rows, left = orm_rows + 1, await anext(orm, None)
            view_rows, right = view_rows + 1, await anext(view, None)
    return ShadowReport(orm_rows, view_rows, report.only_in_orm, report.only_in_view, report.fields)


def _differing(one: str, other: str, fields: Sequence[str] | None) -> list[str]:
    if one == other:
        return []
    if fields is None:
        return ["(hash)"]
    first, second = _load(one), _load(other)
    return [name for name in fields if first[name] != second[name]] or ["(text)"]


def _load(text: str) -> Any:
    """Numbers as they are written: 1.10 is not 1.1 to whoever reads money."""
    return json.loads(text, parse_float=_as_written, parse_int=_as_written)


def _as_written(digits: str) -> tuple[str]:
    return (digits,)
