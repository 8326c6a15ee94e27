"""Functions: in SQL or PL/pgSQL, with the home's own path, and with bodies that can be read."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.templates.lint.rules import Fault, rule
from control_plane.templates.lint.source import Node, Statement, enum_name, inner

_LANGUAGES = ("sql", "plpgsql")
_SETTINGS = {"jit", "lock_timeout", "plan_cache_mode", "timezone", "work_mem"}  # and enable_…


def _options(statement: Statement) -> dict[str, Node]:
    return {inner(option).defname: inner(option).arg for option in statement.node.options}


def _settings(statement: Statement) -> Iterator[tuple[str, bool]]:
    """What the function sets, and whether it takes the present value."""
    for option in map(inner, statement.node.options):
        if option.defname == "set":
            setting = inner(option.arg)
            yield setting.name.lower(), enum_name(setting, "kind") == "VAR_SET_CURRENT"


@rule("function-language")
def function_is_sql_or_plpgsql(statement: Statement) -> Iterator[Fault]:
    if statement.kind != "CreateFunctionStmt":
        return
    options = _options(statement)
    language = options["language"].string.sval if "language" in options else "sql"
    if language not in _LANGUAGES:
        yield Fault(statement.line, f"nothing can be said of a function in {language}", "write it in SQL or PL/pgSQL")


@rule("function-search-path")
def function_pins_its_path(statement: Statement) -> Iterator[Fault]:
    if statement.kind != "CreateFunctionStmt":
        return
    paths = [current for name, current in _settings(statement) if name == "search_path"]
    if not all(paths):
        yield Fault(statement.line, "the function names a path of its own", "write SET search_path FROM CURRENT")
    elif not paths and not statement.node.HasField("sql_body"):
        yield Fault(
            statement.line,
            "the function looks its names up in the path of its caller",
            "write SET search_path FROM CURRENT, or in SQL a body of RETURN or BEGIN ATOMIC",
        )


@rule("session-state")
def function_sets_nothing_that_isolates(statement: Statement) -> Iterator[Fault]:
    if statement.kind != "CreateFunctionStmt":
        return
    for name, _ in _settings(statement):
        if name != "search_path" and name not in _SETTINGS and not name.startswith("enable_"):
            yield Fault(
                statement.line,
                f"the function sets {name}",
                f"set only {', '.join(sorted(_SETTINGS))} and enable_…",
            )


@rule("dynamic-sql")
def body_runs_no_text(statement: Statement) -> Iterator[Fault]:
    for located in statement.tree:
        if located.kind == "DynamicSql":
            yield Fault(
                located.line,
                "EXECUTE runs a text that nobody can check",
                "write the statement out, with variables where values go",
            )


@rule("transaction-control")
def body_ends_no_transaction(statement: Statement) -> Iterator[Fault]:
    for located in statement.tree:
        if located.kind == "TransactionStmt":
            yield Fault(
                located.line,
                "a transaction is begun or ended",
                "leave it out: a version is one transaction per home, and a request is one",
            )


@rule("body-unread")
def body_can_be_read(statement: Statement) -> Iterator[Fault]:
    for located in statement.tree:
        if located.kind == "Unread":
            yield Fault(
                located.line,
                "this part of the body cannot be read",
                "write it more simply, or waive the rule with the reason why it is safe",
            )
