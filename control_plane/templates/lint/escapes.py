"""What would reach past the home: names of other schemas, settings, roles, files, other sessions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from control_plane.templates.lint.rules import Fault, rule
from control_plane.templates.lint.source import Located, Node, Statement, enum_name, inner, kind_of

_SCHEMAS = {"tenancy", "pg_catalog", "extensions"}
_UNQUALIFIED = "leave the schema out: the runner sets the path, and the same text runs in every home"
_DOTTED = re.compile(r'\s*"?(?P<schema>[a-z_]\w*)"?\s*\.\s*"?[a-z_]\w*"?\s*(\(.*\)\s*)?', re.IGNORECASE)

_PARTS = {"OBJECT_COLUMN", "OBJECT_TABCONSTRAINT", "OBJECT_TRIGGER", "OBJECT_RULE", "OBJECT_POLICY"}
# Functions of `tenancy` that a request calls from outside, and that would lead a template to another tenant.
_ROUTES = {"set_tenant_context", "route_to_tenant", "find_route"}
_SESSION_CALLS = re.compile(r"set_config|pg_(try_)?advisory_(lock|unlock)(_shared|_all)?|setseed|pg_export_snapshot")
_TAKE_NAMES = {"nextval", "currval", "setval"}
_DYNAMIC_CALLS = re.compile(r"(query|cursor|table|schema|database)_to_xml(schema|_and_xmlschema)?|ts_stat")
_SERVER_CALLS = re.compile(
    r"dblink.*|lo_.*|loread|lowrite|pg_(read|ls|stat|file|rotate|reload|switch|create|terminate|cancel|promote)_.*"
)


def _names(strings: Iterable[Node]) -> list[str]:
    return [node.sval for kind, node in map(kind_of, strings) if kind == "String"]


def _of_relation(node: Node) -> list[str]:
    return [name for name in (node.catalogname, node.schemaname, node.relname) if name]


def _of_type(node: Node) -> list[str]:
    names = _names(node.names)
    return names[:-1] if node.pct_type and len(names) < 4 else names  # tb_a.id%TYPE


# Kind of node → the name that it looks up, with its schema where it has one.
_LOOKUPS: dict[str, Callable[[Node], list[str]]] = {
    "RangeVar": _of_relation,
    "TypeName": _of_type,
    "TypeReference": lambda fragment: [fragment.text, "…"],
    "FuncCall": lambda node: _names(node.funcname),
    "CreateFunctionStmt": lambda node: _names(node.funcname),
    "CreateTrigStmt": lambda node: _names(node.funcname),
    "CreateStatsStmt": lambda node: _names(node.defnames),
    "ObjectWithArgs": lambda node: _names(node.objname),
    "CollateClause": lambda node: _names(node.collname),
    "A_Expr": lambda node: _names(node.name),
    "SortBy": lambda node: _names(node.use_op),
}


def _qualified(located: Located) -> Iterator[list[str]]:
    if located.kind in _LOOKUPS:
        yield _LOOKUPS[located.kind](located.node)
    elif located.kind in ("CommentStmt", "DropStmt"):
        yield from _addressed(located)


def _addressed(located: Located) -> Iterator[list[str]]:
    """The objects of COMMENT ON and DROP; what belongs to a table is named after it, `tb_a.name`, without a schema."""
    node = located.node
    comment = located.kind == "CommentStmt"
    part_of_table = enum_name(node, "objtype" if comment else "remove_type") in _PARTS
    for kind, each in map(kind_of, [node.object] if comment else node.objects):
        if kind == "List":
            yield _names(each.items)[: -1 if part_of_table else None]


@rule("qualified-name")
def names_are_unqualified(statement: Statement) -> Iterator[Fault]:
    for located in statement.tree:
        for names in _qualified(located):
            if len(names) > 1 and names[0] not in _SCHEMAS:
                yield Fault(located.line, f"{'.'.join(names)} names a schema", _UNQUALIFIED)
        for text in _looked_up(located):
            match = _DOTTED.fullmatch(text)
            if match and match["schema"] not in _SCHEMAS:
                yield Fault(located.line, f"'{text}' names a schema", _UNQUALIFIED)
        if located.kind == "ColumnRef":
            names = _names(located.node.fields)
            if len(names) == len(located.node.fields) > 2 and names[0] not in _SCHEMAS | _own_name(statement):
                yield Fault(located.line, f"{'.'.join(names)} names a schema", _UNQUALIFIED)


def _own_name(statement: Statement) -> set[str]:
    """PL/pgSQL qualifies a variable with the name of its function."""
    return set(_names(statement.node.funcname)) if statement.kind == "CreateFunctionStmt" else set()


def _looked_up(located: Located) -> Iterator[str]:
    """Literals that stand for a relation or a function: 'x'::regclass, and what functions of `tenancy` are given."""
    node = located.node
    arguments: list[Node] = []
    if located.kind == "TypeCast" and _names(node.type_name.names)[-1].startswith("reg"):
        arguments = [node.arg]
    elif located.kind == "FuncCall":
        *schema, name = _names(node.funcname)
        if schema == ["tenancy"]:  # what takes a table or a function there takes it by name
            arguments = list(node.args)
        elif name.startswith("to_reg") or name in _TAKE_NAMES:
            arguments = list(node.args)[:1]
    for argument in map(inner, arguments):
        if type(argument).DESCRIPTOR.name == "A_Const" and argument.HasField("sval"):
            yield argument.sval.sval


@rule("tenancy-internals")
def tenancy_is_called_not_read(statement: Statement) -> Iterator[Fault]:
    for located in statement.tree:
        if located.kind == "RangeVar" and located.node.schemaname == "tenancy":
            yield Fault(
                located.line,
                f"tenancy.{located.node.relname} is read or written",
                "call the functions of tenancy that are made for templates",
            )
        elif located.kind == "FuncCall" and _names(located.node.funcname)[-1] in _ROUTES:
            yield Fault(
                located.line,
                f"{_names(located.node.funcname)[-1]}() binds a tenant",
                "leave it out: the request has bound its tenant, and no function may choose another",
            )


@rule("session-state")
def session_stays_as_it_is(statement: Statement) -> Iterator[Fault]:
    instead = "leave it out: the runner and the pool set path, role and timeouts"
    made = {"CreateStmt": "relation", "ViewStmt": "view"}.get(statement.kind)
    if made and getattr(statement.node, made).relpersistence == "t":
        yield Fault(statement.line, "what is temporary outlives the transaction", "use a query or an array")
    for located in statement.tree:
        if located.kind == "FuncCall":
            name = _names(located.node.funcname)[-1]
            if _SESSION_CALLS.fullmatch(name):
                yield Fault(located.line, f"{name}() changes the session", instead)
            elif name == "current_setting" and _constant(located.node).startswith("app."):
                yield Fault(located.line, "the tenant's context is read past its readers", "call tenancy.current_…()")


def _constant(call: Node) -> str:
    argument = inner(call.args[0]) if call.args else None
    return str(getattr(getattr(argument, "sval", None), "sval", ""))


@rule("dynamic-sql")
def call_runs_no_text(statement: Statement) -> Iterator[Fault]:
    yield from _calls(statement, _DYNAMIC_CALLS, "runs a text that nobody can check", "write the query out")


@rule("notify")
def call_notifies_nobody(statement: Statement) -> Iterator[Fault]:
    pattern = re.compile("pg_notify|pg_listening_channels")
    yield from _calls(statement, pattern, "reaches every tenant's sessions", "use the library of tenancy for changes")


@rule("server-object")
def call_leaves_the_server_alone(statement: Statement) -> Iterator[Fault]:
    yield from _calls(statement, _SERVER_CALLS, "works on the server, which all tenants share", "leave it out")


def _calls(statement: Statement, pattern: re.Pattern[str], problem: str, instead: str) -> Iterator[Fault]:
    for located in statement.tree:
        if located.kind == "FuncCall" and pattern.fullmatch(name := _names(located.node.funcname)[-1]):
            yield Fault(located.line, f"{name}() {problem}", instead)
