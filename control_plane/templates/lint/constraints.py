"""Constraints on tables that have rows: added without reading them, validated and built while requests go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from control_plane.templates.lint.columns import added_columns
from control_plane.templates.lint.history import Step
from control_plane.templates.lint.rules import Objection, step_rule
from control_plane.templates.lint.source import Node, Statement, enum_name, inner

_EXCLUSIVE = "nobody reads or writes it (ACCESS EXCLUSIVE)"
_VALIDATED = "add it in a statement of its own, NOT VALID, and VALIDATE CONSTRAINT in concurrent.sql"


def _new_constraints(step: Step, *kinds: str) -> Iterator[tuple[Statement, str, Node]]:
    """Statement, table and definition of the constraints that tables with rows get, alone or with a column."""
    for statement, table, command in step.alterations("AT_AddConstraint"):
        constraint = inner(getattr(command, "def"))
        if enum_name(constraint, "contype") in kinds:
            yield statement, table, constraint
    for statement, table, column in added_columns(step):
        for constraint in map(inner, column.constraints):
            if enum_name(constraint, "contype") in kinds:
                yield statement, table, constraint


@step_rule("foreign-key-scan")
def foreign_key_reads_no_rows(step: Step) -> Iterator[Objection]:
    for statement, table, constraint in _new_constraints(step, "CONSTR_FOREIGN"):
        if not constraint.skip_validation:
            yield (
                statement,
                f"the foreign key from {table} is checked at once: nobody writes to {table} and "
                f"{constraint.pktable.relname} (SHARE ROW EXCLUSIVE) while all rows of {table} are looked up",
                _VALIDATED,
            )


@step_rule("check-scan")
def check_reads_no_rows(step: Step) -> Iterator[Objection]:
    for statement, table, constraint in _new_constraints(step, "CONSTR_CHECK"):
        if not constraint.skip_validation:
            yield (
                statement,
                f"the CHECK on {table} is proved at once: {_EXCLUSIVE} while all its rows are read",
                _VALIDATED,
            )
    for statement, table, command in step.alterations("AT_AttachPartition"):
        partition = inner(getattr(command, "def")).name.relname
        if step.has_rows(partition):
            yield (
                statement,
                f"{partition} becomes a partition of {table}: {_EXCLUSIVE} while all its rows are read",
                "validate a CHECK with the bounds of the partition first, and waive this naming it",
            )


@step_rule("unique-build")
def key_is_built_while_requests_go_on(step: Step) -> Iterator[Objection]:
    for statement, table, constraint in _new_constraints(step, "CONSTR_UNIQUE", "CONSTR_PRIMARY"):
        if not constraint.indexname:
            yield (
                statement,
                f"the key of {table} is built at once: {_EXCLUSIVE} until its index stands",
                "write CREATE UNIQUE INDEX CONCURRENTLY in concurrent.sql, and ADD … USING INDEX in the next version",
            )


@step_rule("exclusion-build")
def exclusion_is_made_with_its_table(step: Step) -> Iterator[Objection]:
    for statement, table, _ in _new_constraints(step, "CONSTR_EXCLUSION"):
        yield (
            statement,
            f"the exclusion constraint on {table} is built at once: {_EXCLUSIVE} until its index stands, and there "
            "is no other way",
            "make a new table with it and fill that in backfill.sql, or waive this when the table is small for good",
        )


@step_rule("validate-apart")
def constraint_is_validated_apart(step: Step) -> Iterator[Objection]:
    for statement, table, command in step.alterations("AT_ValidateConstraint"):
        yield (
            statement,
            f"{command.name} of {table} is validated in the transaction of the version, whose locks are held while "
            "all its rows are read",
            "write it into concurrent.sql, where each statement is a transaction of its own",
        )


@step_rule("alter-merge")
def table_is_altered_once(step: Step) -> Iterator[Objection]:
    seen: Counter[tuple[str, str]] = Counter()
    for statement in step.statements("AlterTableStmt"):
        table = statement.node.relation.relname
        seen[statement.source.file, table] += 1
        if step.has_rows(table) and seen[statement.source.file, table] > 1:
            yield (
                statement,
                f"{table} is altered again: what each ALTER TABLE reads or writes, it reads or writes for itself",
                f"merge it into the first ALTER TABLE {table}, with a comma",
            )
