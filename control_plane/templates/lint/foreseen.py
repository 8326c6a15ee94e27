"""What the text of a version says that it locks, writes anew and takes away, to compare with what it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from control_plane.templates.lint.columns import rewriting
from control_plane.templates.lint.locks import locks
from control_plane.templates.lint.source import Source, Statement, Unparsable, enum_name, inner, kind_of
from control_plane.templates.template import Version


class Foreseen(NamedTuple):
    """Names of relations (`tb_a`, `api_v1.things`); in `removed` also of columns and constraints, `tb_a.name`."""

    locked: frozenset[str]
    rewritten: frozenset[str]
    removed: frozenset[str]  # by contract.sql


def foreseen(version: Version) -> Foreseen:
    """What the files of the version's transaction say."""
    statements = [statement for part in version.parts() for statement in _statements(part.label, part.sql, part.api)]
    return Foreseen(
        frozenset(name for each in statements for lock in locks(each) for name in _spellings(each, lock.relation)),
        frozenset(name for each in statements for name in _rewritten(each)),
        frozenset(name for each in statements if each.source.file == "contract" for name in _removed(each)),
    )


def _statements(label: str, sql: str, api: int | None) -> list[Statement]:
    try:
        return Source(label, sql, api).statements
    except Unparsable:
        return []


def _spellings(statement: Statement, name: str) -> Iterator[str]:
    yield name
    if statement.api is not None:  # the path leads with the API's schema
        yield f"api_v{statement.api}.{name}"


def _rewritten(statement: Statement) -> Iterator[str]:
    if statement.kind != "AlterTableStmt":
        return
    for command in map(inner, statement.node.cmds):
        subtype = enum_name(command, "subtype")
        if subtype == "AT_AlterColumnType" or (subtype == "AT_AddColumn" and rewriting(inner(getattr(command, "def")))):
            yield statement.node.relation.relname


def _removed(statement: Statement) -> Iterator[str]:
    if statement.kind == "AlterTableStmt":
        for command in map(inner, statement.node.cmds):
            if enum_name(command, "subtype").startswith("AT_Drop"):
                yield f"{statement.node.relation.relname}.{command.name}"
    elif statement.kind == "DropStmt":
        for kind, each in map(kind_of, statement.node.objects):
            parts = each.objname if kind == "ObjectWithArgs" else each.items if kind == "List" else ()
            if names := [inner(part).sval for part in parts]:
                yield ".".join(names)
