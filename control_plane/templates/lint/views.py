"""Views: with their caller's rights, tenant_id first, and a list of columns that is written out."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.templates.lint.rules import Fault, rule
from control_plane.templates.lint.source import Node, Statement, inner, kind_of


def output_names(view: Node) -> list[str | None]:
    """The names of a view's columns, None where one has no name of its own; the left arm names those of a UNION."""
    if view.aliases:
        return [inner(alias).sval for alias in view.aliases]
    select = inner(view.query)
    while select.HasField("larg"):
        select = select.larg
    if select.values_lists:
        return [None]
    return [output_name(inner(target)) for target in select.target_list]


def output_name(target: Node) -> str | None:
    if target.name:
        return str(target.name)
    kind, value = kind_of(target.val)
    if kind == "ColumnRef":
        last, name = kind_of(value.fields[-1])
        return str(name.sval) if last == "String" else None
    return None


@rule("view-security-invoker")
def view_runs_as_its_caller(statement: Statement) -> Iterator[Fault]:
    if statement.kind != "ViewStmt":
        return
    given = [inner(option) for option in statement.node.options if inner(option).defname == "security_invoker"]
    # By the catalogue's spelling: the stamp compares with it, and an option without a value is stored as true.
    if not any(not option.HasField("arg") or inner(option.arg).sval == "true" for option in given):
        yield Fault(
            statement.line,
            f"{statement.node.view.relname} does not run with the rights of its caller",
            "write WITH (security_invoker = true), also in CREATE OR REPLACE VIEW, which forgets it",
        )


@rule("view-tenant-id")
def view_selects_tenant_id_first(statement: Statement) -> Iterator[Fault]:
    if statement.kind == "ViewStmt" and output_names(statement.node)[:1] != ["tenant_id"]:
        yield Fault(
            statement.line,
            f"{statement.node.view.relname} does not select tenant_id first",
            "make tenant_id its first column",
        )


@rule("view-star")
def view_lists_its_columns(statement: Statement) -> Iterator[Fault]:
    if statement.kind != "ViewStmt":
        return
    named = {"columns by *": False}
    relations = {
        each.node.alias.aliasname if each.node.HasField("alias") else each.node.relname
        for each in statement.tree
        if each.kind == "RangeVar" and each.node is not statement.node.view
    } - {each.node.ctename for each in statement.tree if each.kind == "CommonTableExpr"}
    for located in statement.tree:
        if located.kind != "ColumnRef":
            continue
        fields = [kind_of(each) for each in located.node.fields]
        if fields[-1][0] == "A_Star":
            named["columns by *"] = True
        elif len(fields) == 1 and fields[0][1].sval in relations:
            named[f"the whole row {fields[0][1].sval}"] = True
        else:
            continue
        what = next(name for name, found in reversed(named.items()) if found)
        yield Fault(
            located.line,
            f"{statement.node.view.relname} takes {what}",
            "list the columns: what is added to the table later is neither meant for the view nor seen by it",
        )
        return
