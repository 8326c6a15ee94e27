"""What a rule is, and all of them by their codes.

A rule is a small function that yields what is wrong. It is registered by a decorator when its module is imported; the
gate calls it and does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from control_plane.templates.lint.history import History, Step
from control_plane.templates.lint.source import Statement

# What holds in a template that has no finding. docs/template-lint.md has examples.
CODES = {
    "syntax": "a file is SQL",
    "waiver": "a waiver names a rule and a reason, and has an effect",
    # Isolation.
    "table-tenant-id": "a table has tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id()",
    "table-primary-key": "a primary key is led by tenant_id",
    "table-protection": "tenancy.protect_table() is called for each table, in the same file",
    "index-tenant-id": "an index and a unique key are led by tenant_id",
    "foreign-key-tenant-id": "a foreign key carries tenant_id",
    "view-security-invoker": "a view runs with the rights of its caller",
    "view-tenant-id": "a view selects tenant_id first",
    "function-language": "a function is written in SQL or PL/pgSQL",
    "function-search-path": "a function finds its names in the home that it was made in",
    "rls-by-hand": "row-level security is made by tenancy.protect_table() alone",
    "grant-by-hand": "grants are made by the stamp alone",
    "owner-by-hand": "owners are set by the stamp alone",
    # Ways out of the home.
    "qualified-name": "names are unqualified, but for those of tenancy, pg_catalog and extensions",
    "tenancy-internals": "of the schema tenancy only the functions for templates are used",
    "session-state": "nothing changes the session, and nothing outlives the transaction",
    "transaction-control": "whoever calls decides where the transaction ends",
    "dynamic-sql": "no SQL is put together at run time",
    "server-object": "nothing that belongs to the server or to a database is touched",
    "copy": "nothing is copied in or out",
    "notify": "nothing is sent to other sessions",
    "anonymous-block": "what runs has a name",
    "statement-kind": "only known kinds of statements are run",
    "body-unread": "every statement of a function's body can be read",
    # Locks: what keeps requests waiting in a home that has rows.
    "column-not-null": "a new column that takes no NULL has a default",
    "column-rewrite": "a new column leaves the rows of its table as they are",
    "column-type": "a column keeps its type",
    "column-kind": "a column has a type that lasts",
    "set-not-null": "NOT NULL is set where a valid CHECK has proved it",
    "foreign-key-scan": "a foreign key on rows is added NOT VALID",
    "check-scan": "a CHECK on rows is added NOT VALID",
    "unique-build": "a key on rows is made of an index that is there already",
    "exclusion-build": "an exclusion constraint is made with its table",
    "validate-apart": "a constraint is validated in a transaction of its own",
    "alter-merge": "a table is altered once in a version",
    "lock-order": "tables are locked in the order of their names",
    "index-blocks-writes": "an index on rows is built CONCURRENTLY",
    "concurrent-file": "concurrent.sql holds what runs outside of a transaction, and nothing else does",
    "concurrent-form": "what has a form that lets requests go on is written in it",
    "if-not-exists": "a home that is not as the template thinks is noticed",
    "data-change": "rows are changed in backfill.sql",
    "backfill-batch": "a backfill changes a bounded number of rows at a time",
    "enum-value": "a value is added to an enum in a transaction of its own",
    # Removals.
    "removal": "nothing goes but in contract.sql",
    "cascade": "nothing goes that nobody named",
    "rename": "nothing changes its name",
    "contract-unannounced": "what contract.sql takes away was announced",
    "contract-dependents": "nothing goes that a view still reads",
    # What API versions promise.
    "view-star": "a view lists its columns",
    "api-column": "a view keeps its columns, in their order and with their types",
    "api-key": "a document keeps its keys, but for those that were announced to go",
    "api-type": "a key keeps its JSON type",
    "deprecation": "a deprecation names what there is, until the version that removes it",
    "catalogue-lost": "what an earlier version built is still there",
    "unforeseen-lock": "no table is locked against readers but by a statement that names it",
    "rewrite": "no table is written anew but by a statement that says so",
    "rehearsal": "a version applies to rows, and its smoke.sql runs",
}

# Running a version on rows can find these too, at no statement: a waiver anywhere in the version's files counts.
REHEARSED = frozenset(
    {"api-column", "api-key", "api-type", "deprecation", "catalogue-lost", "unforeseen-lock", "rewrite"}
)
# Nothing can be done against these but to correct the version.
UNWAIVABLE = frozenset({"syntax", "waiver", "rehearsal", "contract-dependents"})


class Fault(NamedTuple):
    """What a rule found: at which line, and what to write instead."""

    line: int
    message: str
    instead: str


# With the statement that a waiver would stand above; None for what stands in template.toml.
Placed = tuple[Statement | None, str, Fault]
StatementRule = Callable[[Statement], Iterator[Fault]]
StatementRules = Callable[[Statement], Iterator[tuple[str, Fault]]]
# Where, what is wrong, what to write instead.
Objection = tuple[Statement, str, str]
StepRule = Callable[[Step], Iterator[Objection]]
HistoryRule = Callable[[History], Iterator[Placed]]

STATEMENT_RULES: list[StatementRules] = []
STEP_RULES: list[Callable[[Step], Iterator[Placed]]] = []
HISTORY_RULES: list[HistoryRule] = []


def rule(code: str) -> Callable[[StatementRule], StatementRule]:
    """A rule about one statement. One rule may have several functions, each for another kind of statement."""
    assert code in CODES

    def register(function: StatementRule) -> StatementRule:
        STATEMENT_RULES.append(lambda statement: ((code, fault) for fault in function(statement)))
        return function

    return register


def rules(function: StatementRules) -> StatementRules:
    """Rules about one statement that one look decides: yields their codes too."""
    STATEMENT_RULES.append(function)
    return function


def step_rule(code: str) -> Callable[[StepRule], StepRule]:
    """A rule about a version on top of those before it: the same statement may be free on an empty table."""
    assert code in CODES

    def register(function: StepRule) -> StepRule:
        STEP_RULES.append(
            lambda step: (
                (statement, code, Fault(statement.line, message, instead))
                for statement, message, instead in function(step)
            )
        )
        return function

    return register


def history_rule(function: HistoryRule) -> HistoryRule:
    """Rules about a template as it grows."""
    HISTORY_RULES.append(function)
    return function
