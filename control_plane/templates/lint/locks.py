"""Which locks a statement takes on relations that it names, and the order of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from control_plane.templates.lint.history import Step
from control_plane.templates.lint.rules import Objection, step_rule
from control_plane.templates.lint.source import Node, Statement, enum_name, inner, kind_of

# The modes that schema changes take, by PostgreSQL's numbers; those of 5 and more keep writers waiting.
MODES = {
    4: "SHARE UPDATE EXCLUSIVE",
    5: "SHARE",
    6: "SHARE ROW EXCLUSIVE",
    7: "EXCLUSIVE",
    8: "ACCESS EXCLUSIVE",
}
_SHARE_UPDATE, _SHARE, _SHARE_ROW, _EXCLUSIVE = 4, 5, 6, 8
_LIGHT = {"AT_ValidateConstraint", "AT_SetStatistics", "AT_SetOptions", "AT_AttachPartition"}


class Lock(NamedTuple):
    relation: str
    mode: int
    is_view: bool = False


def locks(statement: Statement) -> Iterator[Lock]:
    """In the order in which the statement takes them; a name that it only reads is left out."""
    node = statement.node
    if statement.kind == "AlterTableStmt":
        yield from _of_alterations(node)
    elif statement.kind == "CreateStmt":
        yield from (lock for element in node.table_elts for lock in _of_references(inner(element)))
    elif statement.kind == "ViewStmt":
        yield Lock(node.view.relname, _EXCLUSIVE, is_view=True)
    elif statement.kind == "IndexStmt":
        yield Lock(node.relation.relname, _SHARE_UPDATE if node.concurrent else _SHARE)
    elif statement.kind == "CreateTrigStmt":
        yield Lock(node.relation.relname, _SHARE_ROW)
    elif statement.kind == "LockStmt":
        yield from (Lock(inner(relation).relname, node.mode) for relation in node.relations)
    elif statement.kind in ("TruncateStmt", "RenameStmt", "DropStmt"):
        yield from _of_named(statement)
    elif statement.kind == "SelectStmt":
        yield from _of_calls(node)


def _of_alterations(node: Node) -> Iterator[Lock]:
    table, mode = node.relation.relname, _SHARE_UPDATE
    referenced: list[Lock] = []
    for command in map(inner, node.cmds):
        if command.HasField("def"):
            referenced += _of_references(inner(getattr(command, "def")))
        if enum_name(command, "subtype") not in _LIGHT:
            mode = max(mode, _SHARE_ROW if _adds_foreign_key(command) else _EXCLUSIVE)
    yield Lock(table, mode)
    yield from referenced


def _adds_foreign_key(command: Node) -> bool:
    kind, node = kind_of(getattr(command, "def")) if command.HasField("def") else ("", None)
    return kind == "Constraint" and enum_name(node, "contype") == "CONSTR_FOREIGN"


def _of_references(element: Node) -> Iterator[Lock]:
    kind = type(element).DESCRIPTOR.name
    for constraint in map(inner, element.constraints) if kind == "ColumnDef" else [element]:
        if kind in ("ColumnDef", "Constraint") and enum_name(constraint, "contype") == "CONSTR_FOREIGN":
            yield Lock(constraint.pktable.relname, _SHARE_ROW)
    if kind == "PartitionCmd":
        yield Lock(element.name.relname, _EXCLUSIVE)


def _of_named(statement: Statement) -> Iterator[Lock]:
    if statement.kind != "DropStmt":
        found = [each.node.relname for each in statement.tree if each.kind == "RangeVar"]
        yield from (Lock(name, _EXCLUSIVE) for name in found)
        return
    kind = enum_name(statement.node, "remove_type")
    position = {"OBJECT_TABLE": -1, "OBJECT_VIEW": -1, "OBJECT_TRIGGER": 0}.get(kind)
    for each in statement.node.objects if position is not None else ():
        yield Lock(inner(inner(each).items[position]).sval, _EXCLUSIVE, is_view=kind == "OBJECT_VIEW")


def _of_calls(select: Node) -> Iterator[Lock]:
    """SELECT tenancy.publish_changes('tb_a'): what names a table is about to change it."""
    for target in select.target_list:
        call = inner(inner(target).val)
        if [inner(part).sval for part in getattr(call, "funcname", ())][:1] == ["tenancy"] and call.args:
            argument = inner(call.args[0])
            if name := getattr(getattr(argument, "sval", None), "sval", ""):
                yield Lock(name, _EXCLUSIVE)


@step_rule("lock-order")
def tables_are_locked_in_order(step: Step) -> Iterator[Objection]:
    held: list[str] = []
    for statement in step.statements():
        for lock in locks(statement):
            name = lock.relation
            if lock.is_view or lock.mode < _SHARE or name in held or not step.has_rows(name):
                continue
            if held and name < max(held):
                both = ", ".join(sorted({name, max(held)}))
                yield (
                    statement,
                    f"{name} is locked after {max(held)}: two transactions that lock in different orders wait for each "
                    "other until one of them is killed (40P01)",
                    f"lock by name: put what needs {name} first, or begin with LOCK TABLE {both} IN {MODES[8]} MODE",
                )
            held.append(name)
