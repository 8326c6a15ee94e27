"""What a rule is, and all of them by their codes.

A rule is a small function that yields what is wrong. It is registered by a decorator when its module is imported; the
gate calls it and does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from control_plane.templates.lint.source import Source, Statement
from control_plane.templates.manifest import Manifest

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
    # What API versions promise.
    "view-star": "a view lists its columns",
    "api-column": "a view keeps its columns, in their order and with their types",
    "api-key": "a document keeps its keys, but for those that were announced to go",
    "api-type": "a key keeps its JSON type",
    "deprecation": "a deprecation names what there is, until the version that removes it",
    "catalogue-lost": "what an earlier version built is still there",
    "rehearsal": "a version applies to rows, and its smoke.sql runs",
}

# Running a version on rows can find these too, at no statement: a waiver anywhere in the version's files counts.
REHEARSED = frozenset({"api-column", "api-key", "api-type", "deprecation", "catalogue-lost"})


class Fault(NamedTuple):
    """What a rule found: at which line, and what to write instead."""

    line: int
    message: str
    instead: str


@dataclass(frozen=True, slots=True)
class VersionSource:
    """The parsed files of one version."""

    number: int
    sources: Sequence[Source]


@dataclass(frozen=True, slots=True)
class History:
    """The versions of a template in order, for rules that compare them."""

    manifest: Manifest
    versions: Sequence[VersionSource]


# With the statement that a waiver would stand above; None for what stands in template.toml.
Placed = tuple[Statement | None, str, Fault]
StatementRule = Callable[[Statement], Iterator[Fault]]
StatementRules = Callable[[Statement], Iterator[tuple[str, Fault]]]
HistoryRule = Callable[[History], Iterator[Placed]]

STATEMENT_RULES: list[StatementRules] = []
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


def history_rule(function: HistoryRule) -> HistoryRule:
    """Rules about a template as it grows."""
    HISTORY_RULES.append(function)
    return function
