"""What a home shows to those who rely on it, and what a later state of it no longer shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from control_plane.settings import shipped
from control_plane.templates import Template
from control_plane.templates.script import quote

_CATALOGUE = (shipped("sql") / "migrator" / "catalogue.sql").read_text("utf-8")
_DOCUMENTS = (shipped("sql") / "migrator" / "documents.sql").read_text("utf-8")
_API = "__api_v"
_VIEWERS: tuple[tuple[str, ...], ...] = ((), ("admin",))  # roles: documents may show some more than others


class Column(NamedTuple):
    name: str
    type: str


class Loss(NamedTuple):
    """What is gone: the rule that it breaks, and where; `api` is None for the base schema.

    `subject` is the name of what is gone there, `tb_a` or `tb_a.name`.
    """

    rule: str
    api: int | None
    message: str
    subject: str = ""


@dataclass(frozen=True)
class Snapshot:
    """By API version (None: base schema) and name; documents by the roles of who looks, too."""

    views: Mapping[tuple[int | None, str], Sequence[Column]]
    tables: Mapping[str, Sequence[Column]]
    functions: Mapping[tuple[int | None, str, str], str]  # with arguments → result
    not_null: Set[tuple[str, str]]  # table and column
    parts: Mapping[tuple[str, str, str], str]  # kind (constraint, policy, trigger), table and name → definition
    proved: Set[tuple[str, str, str]]  # those parts that are validated constraints
    documents: Mapping[tuple[int, str, tuple[str, ...]], Mapping[str, frozenset[str]]]  # path → JSON types


async def take(
    connection: asyncpg.Connection, schema: str, bind: Callable[[Sequence[str]], Awaitable[None]]
) -> Snapshot:
    """Look at the home `schema` and its rows; `bind` lets the transaction work for its tenant, with the given roles."""
    views: dict[tuple[int | None, str], list[Column]] = {}
    tables: dict[str, list[Column]] = {}
    functions: dict[tuple[int | None, str, str], str] = {}
    parts: dict[tuple[str, str, str], str] = {}
    not_null: set[tuple[str, str]] = set()
    proved: set[tuple[str, str, str]] = set()
    for row in await connection.fetch(_CATALOGUE, schema):
        api = int(row["schema"].removeprefix(_API)) if row["schema"] else None
        column = Column(row["name"], row["type"])
        if row["kind"] == "function":
            functions[api, row["object"], row["name"]] = row["type"]
        elif row["kind"] != "column":
            part = row["kind"], row["object"], row["name"]
            parts[part] = row["type"]
            proved |= {part} if row["holds"] else set()
        elif row["is_view"]:
            views.setdefault((api, row["object"]), []).append(column)
        else:
            tables.setdefault(row["object"], []).append(column)
            not_null |= {(row["object"], row["name"])} if row["holds"] else set()
    documents = {}
    for roles in _VIEWERS:
        await connection.execute("SET LOCAL timezone = 'UTC'")
        await bind(roles)
        for (api, view), columns in views.items():
            if api is not None and Column("data", "jsonb") in columns:
                name = f"{quote(f'{schema}{_API}{api}')}.{quote(view)}"
                rows = await connection.fetch(_DOCUMENTS.format(view=name))
                documents[api, view, roles] = {row["path"]: frozenset(row["types"]) for row in rows}
    return Snapshot(views, tables, functions, not_null, parts, proved, documents)


def losses(template: Template, version: int, before: Snapshot, after: Snapshot) -> Iterator[Loss]:
    """What `before` had and `after`, the home at `version`, has not, but for what template.toml says is removed."""
    register = _Register(template, version)
    yield from _lost_relations(register, before, after)
    yield from _lost_tables(before, after)
    yield from _lost_parts(before, after)
    for (api, name, arguments), result in before.functions.items():
        found = after.functions.get((api, name, arguments))
        if register.serves(api) and found != result:
            problem = "is gone" if found is None else f"returns {found}, not {result}"
            yield Loss("catalogue-lost", api, f"the function {name}({arguments}) {problem}", name)
    for (api, view, roles), paths in before.documents.items():
        if register.serves(api) and not register.gone(api, view) and (api, view) in after.views:
            yield from _lost_keys(register, api, view, paths, after.documents.get((api, view, roles), {}))


def untrue_deprecations(template: Template, version: int, snapshot: Snapshot) -> Iterator[Loss]:
    """Entries of the register that the documents at `version` belie."""
    register = _Register(template, version)
    for entry in template.manifest.deprecations:
        if entry.field is None or entry.since > version or not register.serves(entry.api):
            continue
        seen = [
            paths for (api, view, _), paths in snapshot.documents.items() if (api, view) == (entry.api, entry.resource)
        ]
        if not any(seen):  # no rows to look at
            continue
        present = any(_field(path) == entry.field for paths in seen for path in paths)
        if present and entry.removed(version):
            yield Loss("deprecation", entry.api, f"{entry} is still there after version {entry.removed_in}")
        elif not present and not entry.removed(version):
            yield Loss("deprecation", entry.api, f"{entry} is not there")


class _Register:
    """What a template says is gone at a version."""

    def __init__(self, template: Template, version: int) -> None:
        self.removed = [entry for entry in template.manifest.deprecations if entry.removed(version)]
        self.served = set(template.api_versions(version))

    def serves(self, api: int | None) -> bool:
        return api is None or api in self.served

    def gone(self, api: int | None, resource: str, path: str | None = None) -> bool:
        return any(
            entry.api == api
            and entry.resource in (None, resource)
            and (entry.field is None or (path is not None and _covers(entry.field, _field(path))))
            for entry in self.removed
        )


def _covers(field: str, path: str) -> bool:
    return path == field or path.startswith((f"{field}.", f"{field}[]"))


def _field(path: str) -> str:
    return path.removeprefix(".")


def _lost_relations(register: _Register, before: Snapshot, after: Snapshot) -> Iterator[Loss]:
    for (api, view), columns in before.views.items():
        if not register.serves(api) or register.gone(api, view):
            continue
        found = after.views.get((api, view))
        if found is None:
            yield Loss("catalogue-lost", api, f"the view {view} is gone", view)
        elif list(found[: len(columns)]) != list(columns):
            first = next(column for n, column in enumerate(columns) if found[n : n + 1] != [column])
            yield Loss("api-column", api, f"{view} has no longer {first.name} {first.type} in its place")


def _lost_tables(before: Snapshot, after: Snapshot) -> Iterator[Loss]:
    for table, columns in before.tables.items():
        if table not in after.tables:
            yield Loss("catalogue-lost", None, f"the table {table} is gone", table)
            continue
        for column in columns:
            subject = f"{table}.{column.name}"
            if column not in after.tables[table]:
                yield Loss("catalogue-lost", None, f"{table} has no longer {column.name} {column.type}", subject)
            elif (table, column.name) in after.not_null - before.not_null and not _checked(before, table, column.name):
                yield Loss("catalogue-lost", None, f"{subject} no longer takes NULL", subject)


def _lost_parts(before: Snapshot, after: Snapshot) -> Iterator[Loss]:
    for (kind, table, name), definition in before.parts.items():
        if table not in after.tables or after.parts.get((kind, table, name)) == definition:
            continue
        if any(definition == _not_null(column) for of, column in after.not_null if of == table):
            continue  # the column says it by now
        problem = "is gone" if (kind, table, name) not in after.parts else "has changed"
        yield Loss("catalogue-lost", None, f"the {kind} {name} of {table} {problem}", f"{table}.{name}")


def _checked(snapshot: Snapshot, table: str, column: str) -> bool:
    """Whether a valid CHECK said already that the column is never NULL."""
    return any(part[1] == table and snapshot.parts[part] == _not_null(column) for part in snapshot.proved)


def _not_null(column: str) -> str:
    return f"CHECK (({column} IS NOT NULL))"


def _lost_keys(
    register: _Register,
    api: int,
    view: str,
    before: Mapping[str, frozenset[str]],
    after: Mapping[str, frozenset[str]],
) -> Iterator[Loss]:
    if before and not after:
        yield Loss("api-key", api, f"{view} shows none of the rows that it showed")
        return
    lost: list[str] = []
    for path, types in before.items():
        if any(path.startswith(each) for each in lost) or register.gone(api, view, path):
            continue
        if path not in after:
            lost.append(path)
            yield Loss("api-key", api, f"{view} loses the key '{_field(path)}'")
        elif changed := types - after[path] - {"null"}:
            is_now = ", ".join(sorted(after[path]))
            yield Loss("api-type", api, f"'{_field(path)}' of {view} was {', '.join(sorted(changed))} and is {is_now}")
