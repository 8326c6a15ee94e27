"""Tables, indexes and keys: all of them led by tenant_id, all of them protected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from control_plane.templates.lint.rules import Fault, rule
from control_plane.templates.lint.source import Node, Statement, enum_name, inner, kind_of

_TENANT = "tenant_id"
_ALTER_FIRST = "put tenant_id first, so that no key tells of another tenant and no scan reads its rows"


def _columns(table: Node) -> dict[str, Node]:
    return {node.colname: node for kind, node in map(kind_of, table.table_elts) if kind == "ColumnDef"}


def _constraints(statement: Statement) -> Iterator[tuple[Node, str]]:
    """Each constraint that the statement makes, with the column that it is written at, "" for none."""
    if statement.kind == "CreateStmt":
        elements = list(statement.node.table_elts)
    elif statement.kind == "AlterTableStmt":
        elements = [inner(command).__getattribute__("def") for command in statement.node.cmds]
    else:
        return
    for kind, node in map(kind_of, elements):
        if kind == "Constraint":
            yield node, ""
        elif kind == "ColumnDef":
            yield from ((inner(constraint), node.colname) for constraint in node.constraints)


def _type(constraint: Node) -> str:
    return enum_name(constraint, "contype")


def _names(strings: Sequence[Node]) -> list[str]:
    return [inner(each).sval for each in strings]


def _is_partition(table: Node) -> bool:
    return bool(table.HasField("partbound"))


def _is_uuid(column: Node) -> bool:
    return _names(column.type_name.names)[-1:] == ["uuid"] and not column.type_name.array_bounds


@rule("table-tenant-id")
def table_has_tenant_id(statement: Statement) -> Iterator[Fault]:
    table = statement.node
    if statement.kind != "CreateStmt" or _is_partition(table):
        return
    instead = "write tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id() as its first column"
    name = table.relation.relname
    if table.inh_relations:
        yield Fault(statement.line, f"{name} inherits, and policies of the parent do not hold for it", instead)
        return
    column = _columns(table).get(_TENANT)
    if column is None:
        yield Fault(statement.line, f"{name} has no column tenant_id of its own", instead)
        return
    given = {_type(inner(constraint)): inner(constraint) for constraint in column.constraints}
    default = given.get("CONSTR_DEFAULT")
    wrong = [
        problem
        for problem, found in (
            ("is no uuid", not _is_uuid(column)),
            ("may be NULL", "CONSTR_NOTNULL" not in given),
            (
                "has no DEFAULT tenancy.current_tenant_id()",
                default is None or _names(inner(default.raw_expr).funcname or []) != ["tenancy", "current_tenant_id"]
                if default is None or kind_of(default.raw_expr)[0] == "FuncCall"
                else True,
            ),
        )
        if found
    ]
    if wrong:
        yield Fault(statement.line, f"tenant_id of {name} {' and '.join(wrong)}", instead)


@rule("table-tenant-id")
def tenant_id_stays(statement: Statement) -> Iterator[Fault]:
    if statement.kind != "AlterTableStmt":
        return
    for command in map(inner, statement.node.cmds):
        if command.name == _TENANT:
            yield Fault(statement.line, "tenant_id of a table is changed", "leave tenant_id as CREATE TABLE made it")


@rule("table-primary-key")
def primary_key_is_led_by_tenant_id(statement: Statement) -> Iterator[Fault]:
    keys = [
        (_names(constraint.keys) or [column], constraint)
        for constraint, column in _constraints(statement)
        if _type(constraint) == "CONSTR_PRIMARY"
    ]
    instead = "write PRIMARY KEY (tenant_id, id)"
    for columns, _ in keys:
        if columns[0] != _TENANT:
            yield Fault(statement.line, f"the primary key is led by {columns[0]}", instead)
    if statement.kind == "CreateStmt" and not keys and not _is_partition(statement.node):
        yield Fault(statement.line, f"{statement.node.relation.relname} has no primary key", instead)


@rule("table-protection")
def table_is_protected(statement: Statement) -> Iterator[Fault]:
    if statement.kind != "CreateStmt" or _is_partition(statement.node):
        return
    name = statement.node.relation.relname
    following = (each for each in statement.source.statements if each.start > statement.start)
    if name not in {table for each in following for table in _protects(each)}:
        yield Fault(statement.line, f"{name} is not protected", f"add SELECT tenancy.protect_table('{name}') after it")


def _protects(statement: Statement) -> Iterator[str]:
    for located in statement.tree if statement.kind == "SelectStmt" else ():
        if located.kind == "FuncCall" and _names(located.node.funcname) == ["tenancy", "protect_table"]:
            argument = inner(located.node.args[0]) if located.node.args else None
            yield getattr(getattr(argument, "sval", None), "sval", "")


@rule("index-tenant-id")
def keys_are_led_by_tenant_id(statement: Statement) -> Iterator[Fault]:
    if statement.kind == "IndexStmt":
        index = statement.node
        first = inner(index.index_params[0]).name
        # Other kinds of index have no order of columns, and hold no key; so has one that is unique.
        if (index.unique or index.access_method == "btree") and first != _TENANT:
            yield Fault(statement.line, f"the index {index.idxname} is led by {first or 'an expression'}", _ALTER_FIRST)
        return
    for constraint, column in _constraints(statement):
        kind = _type(constraint)
        if kind == "CONSTR_UNIQUE":
            first = (_names(constraint.keys) or [column])[0]
        elif kind == "CONSTR_EXCLUSION":
            first = inner(inner(constraint.exclusions[0]).items[0]).name
        else:
            continue
        # ADD CONSTRAINT … USING INDEX: the index was looked at when it was made.
        if first != _TENANT and not constraint.indexname:
            yield Fault(statement.line, f"a unique key is led by {first or 'an expression'}", _ALTER_FIRST)


@rule("foreign-key-tenant-id")
def foreign_key_carries_tenant_id(statement: Statement) -> Iterator[Fault]:
    for constraint, column in _constraints(statement):
        if _type(constraint) != "CONSTR_FOREIGN":
            continue
        near = _names(constraint.fk_attrs) or [column]
        far = _names(constraint.pk_attrs)
        # Without a list the columns of the other table's primary key are meant, which tenant_id leads.
        if (_TENANT, _TENANT) not in zip(near, far or [_TENANT], strict=False):
            yield Fault(
                statement.line,
                f"the foreign key to {constraint.pktable.relname} does not carry tenant_id",
                "write FOREIGN KEY (tenant_id, …) REFERENCES … (tenant_id, …)",
            )
