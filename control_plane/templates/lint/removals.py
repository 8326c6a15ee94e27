"""What goes: named one by one, in contract.sql, after somebody announced it."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.templates.lint.history import Step
from control_plane.templates.lint.rules import Fault, Objection, rule, step_rule
from control_plane.templates.lint.source import Node, Statement, enum_name, inner

# A trigger or an index is nobody's interface.
_PROMISED = {"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_ROUTINE", "OBJECT_TYPE"}


@rule("cascade")
def nothing_goes_unnamed(statement: Statement) -> Iterator[Fault]:
    nodes: list[Node] = []
    if statement.kind in ("DropStmt", "TruncateStmt", "RenameStmt"):
        nodes = [statement.node]
    elif statement.kind == "AlterTableStmt":
        nodes = [inner(command) for command in statement.node.cmds]
    if any(enum_name(node, "behavior") == "DROP_CASCADE" for node in nodes):
        yield Fault(
            statement.line,
            "CASCADE takes away whatever depends on it, also views of API versions that are still read",
            "leave it out, and name what else shall go: the server refuses what somebody still reads (2BP01)",
        )


@step_rule("removal")
def constraint_stays(step: Step) -> Iterator[Objection]:
    required = {(table, command.name) for _, table, command in step.alterations("AT_SetNotNull")}
    for statement in step.statements("AlterTableStmt"):
        table = statement.node.relation.relname
        for command in map(inner, statement.node.cmds):
            column, _ = step.null_checks.get((table, command.name), ("", False))
            # The scaffold of a NOT NULL, which says the same from here on.
            if enum_name(command, "subtype") == "AT_DropConstraint" and (table, column) not in required:
                yield (
                    statement,
                    f"the constraint {command.name} of {table} is dropped",
                    "waive this, saying what holds in its place",
                )


@step_rule("contract-unannounced")
def what_goes_was_announced(step: Step) -> Iterator[Objection]:
    if any(entry.removed_in == step.number for entry in step.manifest.deprecations):
        return
    for statement in step.in_file("contract"):
        if _takes_away(statement):
            yield (
                statement,
                f"nothing in template.toml announced what version {step.number} takes away",
                f"list it under [[deprecations]] with removed_in = {step.number}, or waive this: nobody can know of it",
            )


def _takes_away(statement: Statement) -> bool:
    if statement.kind == "AlterTableStmt":
        return any(enum_name(inner(command), "subtype") == "AT_DropColumn" for command in statement.node.cmds)
    return statement.kind == "DropStmt" and enum_name(statement.node, "remove_type") in _PROMISED
