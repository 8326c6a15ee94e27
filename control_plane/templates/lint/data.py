"""Rows: seeded by a version, changed by its backfill, and not while the version holds its locks."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.templates.lint.history import Step
from control_plane.templates.lint.rules import Fault, Objection, rule, step_rule
from control_plane.templates.lint.source import Located, Statement, inner, kind_of

_SETUP = {"protect_table", "append_only", "publish_changes"}  # and create_…, of tenancy: they make, and fill nothing
_BACKFILL = "write it into backfill.sql, in batches"


@step_rule("data-change")
def version_changes_no_rows(step: Step) -> Iterator[Objection]:
    for statement in step.statements("UpdateStmt", "InsertStmt", "SelectStmt"):
        if statement.kind == "SelectStmt":
            problems = [f"{name}() may change any number of rows" for name in _opaque_calls(step, statement)]
        elif statement.kind == "UpdateStmt":
            table = statement.node.relation.relname
            problems = [f"rows of {table} are changed"] if step.has_rows(table) else []
        else:
            problems = [f"rows are copied from {table}" for table in _sources(step, statement)]
        for problem in problems:
            yield statement, f"{problem} while the version holds its locks", _BACKFILL


def _opaque_calls(step: Step, statement: Statement) -> Iterator[str]:
    if step.number == 1:
        return
    for kind, call in (kind_of(inner(target).val) for target in statement.node.target_list):
        if kind != "FuncCall":
            continue
        *schema, name = (inner(part).sval for part in call.funcname)
        if schema != ["tenancy"] or not (name in _SETUP or name.startswith("create_")):
            yield name


def _sources(step: Step, statement: Statement) -> Iterator[str]:
    target = statement.node.relation
    own = {each.node.ctename for each in statement.tree if each.kind == "CommonTableExpr"}
    for each in statement.tree:
        if (
            each.kind == "RangeVar"
            and each.node is not target
            and each.node.relname not in own
            and step.has_rows(each.node.relname)
        ):
            yield each.node.relname
            return


@rule("backfill-batch")
def backfill_is_bounded(statement: Statement) -> Iterator[Fault]:
    if statement.source.file != "backfill" or statement.kind == "SelectStmt":
        return
    if statement.kind == "InsertStmt" and not any(each.kind == "RangeVar" for each in statement.tree[2:]):
        return
    if not any(_bounds(each) for each in statement.tree):
        yield Fault(
            statement.line,
            "all rows are changed in one transaction: their locks and dead versions stay until its end",
            "bound the batch: WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM … WHERE … LIMIT 1000)",
        )


def _bounds(each: Located) -> bool:
    return each.kind == "ParamRef" or (each.kind == "SelectStmt" and each.node.HasField("limit_count"))
