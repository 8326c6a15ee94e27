"""The statements of concurrent.sql and backfill.sql, each of which runs by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import postgast

from control_plane.templates.lint.source import Node, Source, Statement, Unparsable, enum_name, inner

_CONCURRENTLY = postgast.pg_query_pb2.Token.Value("CONCURRENTLY")


@dataclass(frozen=True, slots=True)
class Apart:
    """One statement, and the line at which it stands.

    `kind` is what it does to `name`: `build` or `drop` an index, `rebuild` one or all of a table, add the `label`
    `detail` to an enum, `detach` the partition `detail` from a table or `finalize` that; `other` leaves nothing half.
    """

    line: int
    sql: str
    kind: str = "other"
    name: str = ""
    detail: str = ""


def apart(label: str, sql: str) -> list[Apart]:
    """The statements of a file in order; none when it is no SQL, which the gate refuses."""
    try:
        statements = Source(label, sql).statements
    except Unparsable:
        return []
    return [
        Apart(each.line, each.source.content[each.start : each.end].decode(), *_subject(each)) for each in statements
    ]


def inside(label: str, sql: str) -> str:
    """concurrent.sql for a transaction in which all tables are empty: nothing there is worth a second snapshot.

    What only repairs or ends something is left out. Lines stay where they are.
    """
    try:
        statements = Source(label, sql).statements
    except Unparsable:
        return sql
    content = bytearray(sql.encode())
    for statement in statements:
        if _subject(statement)[0] in ("rebuild", "finalize"):
            _blank(content, statement.start, statement.end)
    # The scanner tells the word from one in a comment, a string or a quoted name.
    for token in postgast.scan(content.decode()).tokens:
        if token.token == _CONCURRENTLY:
            _blank(content, token.start, token.end)
    return content.decode()


def _blank(content: bytearray, start: int, end: int) -> None:
    content[start:end] = re.sub(rb"[^\n]", b" ", content[start:end])


def _subject(statement: Statement) -> tuple[str, str, str]:
    node = statement.node
    if statement.kind == "IndexStmt":
        return "build", node.idxname, node.relation.relname
    if statement.kind == "DropStmt" and enum_name(node, "remove_type") == "OBJECT_INDEX":
        return "drop", _last(inner(node.objects[0]).items), ""
    if statement.kind == "ReindexStmt" and node.HasField("relation"):
        return "rebuild", node.relation.relname, ""
    if statement.kind == "AlterEnumStmt":
        return "label", _last(node.type_name), node.new_val
    if statement.kind == "AlterTableStmt":
        return next(_detached(node), ("other", "", ""))
    return "other", "", ""


def _detached(node: Node) -> Iterator[tuple[str, str, str]]:
    for command in map(inner, node.cmds):
        kinds = {"AT_DetachPartition": "detach", "AT_DetachPartitionFinalize": "finalize"}
        if kind := kinds.get(enum_name(command, "subtype")):
            yield kind, node.relation.relname, inner(getattr(command, "def")).name.relname


def _last(names: Sequence[Node]) -> str:
    """The name itself, of one that may be qualified."""
    return str(inner(names[-1]).sval)
