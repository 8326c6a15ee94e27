"""Indexes of tables that have rows, and the file for what cannot run in a transaction."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.templates.lint.history import Step
from control_plane.templates.lint.rules import Fault, Objection, rule, step_rule
from control_plane.templates.lint.source import Node, Statement, enum_name, inner

_FILE = "concurrent.sql"


def is_concurrent(statement: Statement) -> bool:
    """Whether it says CONCURRENTLY."""
    node = statement.node
    if statement.kind in ("IndexStmt", "DropStmt"):
        return bool(node.concurrent)
    if statement.kind == "ReindexStmt":
        return any(inner(option).defname == "concurrently" for option in node.params)
    return any(map(_detaches_concurrently, _commands(statement)))


def _commands(statement: Statement) -> list[Node]:
    return [inner(command) for command in statement.node.cmds] if statement.kind == "AlterTableStmt" else []


def _detaches_concurrently(command: Node) -> bool:
    return enum_name(command, "subtype") == "AT_DetachPartition" and inner(getattr(command, "def")).concurrent


@step_rule("index-blocks-writes")
def index_is_built_while_requests_write(step: Step) -> Iterator[Objection]:
    for statement in (*step.statements("IndexStmt"), *step.in_file("concurrent")):
        if statement.kind != "IndexStmt" or statement.node.concurrent:
            continue
        table = statement.node.relation.relname
        if step.has_rows(table) or statement.source.file == "concurrent":
            yield (
                statement,
                f"the index on {table} is built at once: nobody writes to it (SHARE) while all its rows are sorted",
                f"write CREATE INDEX CONCURRENTLY into {_FILE}",
            )


@rule("concurrent-file")
def concurrently_stands_in_its_file(statement: Statement) -> Iterator[Fault]:
    inside = statement.source.file == "concurrent"
    if is_concurrent(statement) and not inside:
        yield Fault(
            statement.line,
            "CONCURRENTLY cannot run inside a transaction (25001), and all files of a version but one are one",
            f"write it into {_FILE}",
        )
    elif inside and statement.kind == "IndexStmt" and not statement.node.idxname:
        yield Fault(
            statement.line,
            "an index without a name: when building it fails, an invalid one is left that nobody finds",
            "give the index a name",
        )


@rule("concurrent-form")
def what_has_a_concurrent_form_uses_it(statement: Statement) -> Iterator[Fault]:
    if statement.source.file != "concurrent" or is_concurrent(statement):
        return
    kinds = {"DropStmt": "DROP INDEX", "ReindexStmt": "REINDEX"}
    detaches = any(enum_name(command, "subtype") == "AT_DetachPartition" for command in _commands(statement))
    if what := "DETACH PARTITION" if detaches else kinds.get(statement.kind):
        yield Fault(statement.line, f"{what} without CONCURRENTLY keeps requests waiting", "write CONCURRENTLY")


@rule("if-not-exists")
def drift_is_noticed(statement: Statement) -> Iterator[Fault]:
    node = statement.node
    hides = statement.kind in ("CreateStmt", "IndexStmt", "CreateStatsStmt") and node.if_not_exists
    hides = hides or (statement.kind in ("DropStmt", "AlterTableStmt") and node.missing_ok)
    if hides or any(command.missing_ok for command in _commands(statement)):
        yield Fault(
            statement.line,
            "IF (NOT) EXISTS passes over a home that is not as the template thinks, or over an invalid index",
            "leave it out: the stamp knows what has run",
        )
