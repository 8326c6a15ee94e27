"""Columns of tables that have rows: what is free to add, and what would write the table anew or read all of it."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.templates.lint.history import Step
from control_plane.templates.lint.rules import Fault, Objection, rule, step_rule
from control_plane.templates.lint.source import Node, Statement, enum_name, inner, kind_of, located

_EXCLUSIVE = "nobody reads or writes it (ACCESS EXCLUSIVE)"
_SERIAL = {"serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"}
# Functions whose value PostgreSQL computes once for all rows that are there. What is not listed may be volatile.
_ONCE = {
    "current_setting", "current_tenant_id", "current_user_id", "date_trunc", "jsonb_build_array", "jsonb_build_object",
    "make_date", "make_interval", "now", "statement_timestamp", "transaction_timestamp",
}  # fmt: skip


def column_type(column: Node) -> str:
    """The last part of the type's name, as the parser has it: `integer` is int4."""
    return str(inner(column.type_name.names[-1]).sval)


def constraints_of(column: Node) -> dict[str, Node]:
    """What is written at a column, by kind (`CONSTR_DEFAULT`)."""
    return {enum_name(constraint, "contype"): constraint for constraint in map(inner, column.constraints)}


def added_columns(step: Step) -> Iterator[tuple[Statement, str, Node]]:
    """Statement, table and definition of each column that is added to a table with rows."""
    for statement, table, command in step.alterations("AT_AddColumn"):
        yield statement, table, inner(getattr(command, "def"))


def rewriting(column: Node) -> str | None:
    """Why adding the column writes every row anew; None when it does not."""
    given = constraints_of(column)
    if column_type(column) in _SERIAL or "CONSTR_IDENTITY" in given:
        return "counts, so that each row gets a number of its own"
    if "CONSTR_GENERATED" in given and given["CONSTR_GENERATED"].generated_kind != "v":
        return "is computed and stored for each row"
    if "CONSTR_DEFAULT" in given:
        for node in located(given["CONSTR_DEFAULT"].raw_expr, 0, lambda _: 0):
            if node.kind == "FuncCall" and (name := inner(node.node.funcname[-1]).sval) not in _ONCE:
                return f"has the default {name}(), which may differ from row to row"
    return None


@step_rule("column-not-null")
def new_column_lets_old_rows_be(step: Step) -> Iterator[Objection]:
    for statement, table, column in added_columns(step):
        given = constraints_of(column)
        if "CONSTR_NOTNULL" in given and not _has_value(given) and rewriting(column) is None:
            yield (
                statement,
                f"{table}.{column.colname} is NOT NULL without a default: every home with rows refuses it, and what "
                "writes rows without it fails",
                "give it a constant default, or leave it nullable, fill it in backfill.sql and require it later",
            )


def _has_value(given: dict[str, Node]) -> bool:
    if "CONSTR_DEFAULT" in given:
        kind, value = kind_of(given["CONSTR_DEFAULT"].raw_expr)
        return not (kind == "A_Const" and value.isnull)
    return "CONSTR_GENERATED" in given


@step_rule("column-rewrite")
def new_column_leaves_rows_as_they_are(step: Step) -> Iterator[Objection]:
    for statement, table, column in added_columns(step):
        if why := rewriting(column):
            yield (
                statement,
                f"{table}.{column.colname} {why}: {_EXCLUSIVE} while all rows and indexes are written anew",
                "add it nullable, set its default in a second ALTER COLUMN, and fill the old rows in backfill.sql",
            )


@step_rule("column-type")
def column_keeps_its_type(step: Step) -> Iterator[Objection]:
    for statement, table, command in step.alterations("AT_AlterColumnType"):
        yield (
            statement,
            f"the type of {table}.{command.name} changes: {_EXCLUSIVE} while all rows and indexes are written anew, "
            "and no view may show the column (0A000)",
            "add a column of the new type, fill it in backfill.sql, and let the views show that one",
        )


@step_rule("set-not-null")
def not_null_is_proved_first(step: Step) -> Iterator[Objection]:
    for statement, table, command in step.alterations("AT_SetNotNull"):
        if (table, command.name) not in step.never_null:
            yield (
                statement,
                f"{table}.{command.name} becomes NOT NULL: {_EXCLUSIVE} while all rows are read",
                f"add CHECK ({command.name} IS NOT NULL) NOT VALID, validate it in concurrent.sql, and set this in the "
                "version after that: a valid check saves the scan",
            )
    for statement, table, command in step.alterations("AT_AddConstraint"):
        constraint = inner(getattr(command, "def"))
        if enum_name(constraint, "contype") == "CONSTR_NOTNULL":
            yield (
                statement,
                f"NOT NULL as a constraint of {table} needs PostgreSQL 18",
                f"add CHECK ({inner(constraint.keys[0]).sval} IS NOT NULL) NOT VALID, which all versions know",
            )


_UNSUITABLE = {
    "json": ("keeps its text and has no equality", "jsonb"),
    "varchar": ("has a length that is hard to change", "text with CHECK (length(…) <= …)"),
    "bpchar": ("pads with blanks", "text with CHECK (length(…) = …)"),
    "timestamp": ("says no time zone, so nobody knows which moment is meant", "timestamptz"),
    "timetz": ("has a time zone without a date", "time, or timestamptz"),
    "money": ("depends on the server's locale", "numeric, with the currency in a column beside it"),
    **dict.fromkeys(sorted(_SERIAL), ("counts for all tenants of a home, and tells each of the others", "uuid")),
}
_SHORT = {"int4", "int2"}


@rule("column-kind")
def column_has_a_lasting_type(statement: Statement) -> Iterator[Fault]:
    for each in statement.tree if statement.kind in ("CreateStmt", "AlterTableStmt") else ():
        if each.kind != "ColumnDef" or not each.node.HasField("type_name"):
            continue
        column, kind = each.node, column_type(each.node)
        name = column.colname or "the column"  # ALTER COLUMN names it elsewhere
        if kind in _UNSUITABLE and (kind != "varchar" or column.type_name.typmods):
            why, instead = _UNSUITABLE[kind]
            yield Fault(each.line, f"{name} is {_spelt(kind)}, which {why}", f"write {instead}")
        elif kind in _SHORT and (column.colname == "id" or "CONSTR_IDENTITY" in constraints_of(column)):
            yield Fault(each.line, f"{name} is a key of {kind[-1]} bytes, which runs out", "write uuid or bigint")


def _spelt(kind: str) -> str:
    return {"bpchar": "char", "varchar": "varchar(n)"}.get(kind, kind)
