"""Which statements a template may hold. What is not listed is refused, so that nothing slips through unread."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.templates.lint.rules import Fault, rules
from control_plane.templates.lint.source import Node, Statement, enum_name, inner, kind_of

_IN_FILES = {
    "CreateStmt",
    "IndexStmt",
    "ViewStmt",
    "CreateFunctionStmt",
    "CreateTrigStmt",
    "CreateStatsStmt",
    "AlterTableStmt",
    "CommentStmt",
    "SelectStmt",
    "InsertStmt",
    "UpdateStmt",
}
_IN_BODIES = {
    "SelectStmt",
    "InsertStmt",
    "UpdateStmt",
    "DeleteStmt",
    "MergeStmt",
    "CallStmt",
    "ReturnStmt",
    "ConstraintsSetStmt",
}
_IN_SMOKE = _IN_BODIES - {"ReturnStmt"}

_ALTERATIONS = {
    "AT_AddColumn",
    "AT_ColumnDefault",
    "AT_AddConstraint",
    "AT_ValidateConstraint",
    "AT_SetNotNull",
    "AT_DropNotNull",
    "AT_SetStatistics",
    "AT_SetStorage",
    "AT_SetCompression",
    "AT_SetOptions",
    "AT_SetRelOptions",
    "AT_AttachPartition",
}

_PROTECTION = "tenancy.protect_table() makes the policies, and the stamp checks them"
_GRANTS = "leave it out: the stamp grants views, tables, and the functions that template.toml lists"
_OWNERS = "leave it out: cp_owner owns what a version makes, and the stamp hands definer functions over"
_SESSION = "leave it out: the runner and the pool set path, role and timeouts"
_SERVER = "leave it out; extensions are listed in template.toml"

# Kind of statement → (rule, what it is, what to do instead).
_REFUSED: dict[str, tuple[str, str, str]] = {
    "CreatePolicyStmt": ("rls-by-hand", "a policy is made by hand", _PROTECTION),
    "AlterPolicyStmt": ("rls-by-hand", "a policy is changed by hand", _PROTECTION),
    "GrantStmt": ("grant-by-hand", "something is granted or revoked by hand", _GRANTS),
    "GrantRoleStmt": ("grant-by-hand", "a role is granted or revoked", _GRANTS),
    "AlterDefaultPrivilegesStmt": ("grant-by-hand", "default privileges are changed", _GRANTS),
    "AlterOwnerStmt": ("owner-by-hand", "an owner is changed by hand", _OWNERS),
    "ReassignOwnedStmt": ("owner-by-hand", "owners are changed by hand", _OWNERS),
    "VariableSetStmt": ("session-state", "SET or RESET changes the session", _SESSION),
    "DiscardStmt": ("session-state", "DISCARD changes the session", _SESSION),
    "PrepareStmt": ("session-state", "PREPARE changes the session", _SESSION),
    "LoadStmt": ("session-state", "LOAD changes the session", _SESSION),
    "DeclareCursorStmt": ("session-state", "a cursor is declared", _SESSION),
    "CreateExtensionStmt": ("server-object", "an extension is created", "list it in template.toml: extensions = […]"),
    "AlterExtensionStmt": ("server-object", "an extension is changed", _SERVER),
    "AlterExtensionContentsStmt": ("server-object", "an extension is changed", _SERVER),
    "CreateSchemaStmt": ("server-object", "a schema is created", "leave it out: a home has its schemas"),
    "CreateRoleStmt": ("server-object", "a role is created", _SERVER),
    "AlterRoleStmt": ("server-object", "a role is changed", _SERVER),
    "AlterRoleSetStmt": ("server-object", "a role is changed", _SERVER),
    "DropRoleStmt": ("server-object", "a role is dropped", _SERVER),
    "CreatedbStmt": ("server-object", "a database is created", _SERVER),
    "AlterDatabaseStmt": ("server-object", "a database is changed", _SERVER),
    "AlterDatabaseSetStmt": ("server-object", "a database is changed", _SERVER),
    "DropdbStmt": ("server-object", "a database is dropped", _SERVER),
    "AlterSystemStmt": ("server-object", "the server is configured", _SERVER),
    "CreateTableSpaceStmt": ("server-object", "a tablespace is created", _SERVER),
    "CreateFdwStmt": ("server-object", "a foreign data wrapper is created", _SERVER),
    "CreateForeignServerStmt": ("server-object", "a foreign server is created", _SERVER),
    "CreateForeignTableStmt": ("server-object", "a foreign table cannot be isolated", "use a table"),
    "CreateUserMappingStmt": ("server-object", "a user mapping is created", _SERVER),
    "CreateEventTrigStmt": ("server-object", "an event trigger watches every home", _SERVER),
    "CreatePublicationStmt": ("server-object", "a publication is created", _SERVER),
    "CreateSubscriptionStmt": ("server-object", "a subscription is created", _SERVER),
    "CreatePLangStmt": ("server-object", "a language is created", _SERVER),
    "CopyStmt": ("copy", "COPY reads or writes past the tenant", "write INSERT"),
    "DoStmt": ("anonymous-block", "DO runs a block without a name", "write a function, or plain statements"),
    "ListenStmt": ("notify", "LISTEN changes the session", "use the library of tenancy for changes"),
    "UnlistenStmt": ("notify", "UNLISTEN changes the session", "use the library of tenancy for changes"),
    "NotifyStmt": ("notify", "NOTIFY reaches every tenant's sessions", "use the library of tenancy for changes"),
    "ExecuteStmt": ("dynamic-sql", "EXECUTE runs what a session prepared", "write the statement out"),
    "TransactionStmt": (
        "transaction-control",
        "a transaction is begun or ended",
        "leave it out: a version is one transaction per home, and a request is one",
    ),
    "CreateTableAsStmt": ("statement-kind", "CREATE TABLE AS makes no key and no policy", "use CREATE TABLE"),
    "DropStmt": ("statement-kind", "something is dropped", "announce it first, and waive this afterwards"),
    "RenameStmt": ("statement-kind", "something is renamed", "add the new name beside the old one"),
    "AlterEnumStmt": ("statement-kind", "an enum type is changed", "use text with a CHECK"),
    "CreateEnumStmt": ("statement-kind", "an enum type is created", "use text with a CHECK"),
    "CreateSeqStmt": ("statement-kind", "a sequence counts for all tenants of a home", "use uuid keys"),
    "TruncateStmt": ("statement-kind", "TRUNCATE passes row-level security by", "write DELETE in a function"),
    "AlterFunctionStmt": ("statement-kind", "a function is changed in place", "write CREATE OR REPLACE FUNCTION"),
}  # fmt: skip

_ALTERED: dict[str, tuple[str, str, str]] = {
    "AT_EnableRowSecurity": ("rls-by-hand", "row-level security is switched by hand", _PROTECTION),
    "AT_DisableRowSecurity": ("rls-by-hand", "row-level security is switched off", _PROTECTION),
    "AT_ForceRowSecurity": ("rls-by-hand", "row-level security is switched by hand", _PROTECTION),
    "AT_NoForceRowSecurity": ("rls-by-hand", "row-level security is switched off for the owner", _PROTECTION),
    "AT_ChangeOwner": ("owner-by-hand", "an owner is changed by hand", _OWNERS),
    "AT_DropConstraint": ("statement-kind", "a constraint is dropped", "waive this, saying what holds in its place"),
}

_POLICY_OBJECT = "OBJECT_POLICY"


@rules
def only_known_kinds(statement: Statement) -> Iterator[tuple[str, Fault]]:
    """Every refused kind of statement: the statement itself, and those in the body that it defines."""
    yield from _judge(statement, statement.kind, statement.node, statement.line, _allowed(statement))
    for located in statement.tree:
        if located.kind == "Embedded":
            yield from _judge(statement, located.node, None, located.line, _IN_BODIES)


def _allowed(statement: Statement) -> set[str]:
    return _IN_SMOKE if statement.source.smoke else _IN_FILES


def _judge(statement: Statement, kind: str, node: Node, line: int, allowed: set[str]) -> Iterator[tuple[str, Fault]]:
    if kind == "DropStmt" and node is not None and enum_name(node, "remove_type") == _POLICY_OBJECT:
        yield "rls-by-hand", Fault(line, "a policy is dropped by hand", _PROTECTION)
    elif kind not in allowed:
        unknown = ("statement-kind", f"a template has no use for this statement ({kind})", "see docs/template-lint.md")
        code, message, instead = _REFUSED.get(kind, unknown)
        yield code, Fault(line, message, instead)
    elif kind == "AlterTableStmt":
        yield from _alterations(node, line)
    elif kind == "SelectStmt" and allowed is _IN_FILES and not _is_call(node):
        yield "statement-kind", Fault(line, "a query's answer is lost", "call functions only: SELECT tenancy.…()")
    elif kind == "SelectStmt" and node is not None and node.HasField("into_clause"):
        yield "statement-kind", Fault(line, "SELECT INTO makes a table", "write CREATE TABLE and INSERT")


def _alterations(node: Node, line: int) -> Iterator[tuple[str, Fault]]:
    if enum_name(node, "objtype") not in ("OBJECT_TABLE", "OBJECT_INDEX"):
        yield "statement-kind", Fault(line, "something else than a table is altered", "write CREATE OR REPLACE")
        return
    for command in map(inner, node.cmds):
        kind = enum_name(command, "subtype")
        if kind not in _ALTERATIONS:
            unknown = ("statement-kind", f"a template has no use for this change ({kind})", "see docs/template-lint.md")
            code, message, instead = _ALTERED.get(kind, unknown)
            yield code, Fault(line, message, instead)


def _is_call(select: Node) -> bool:
    """`SELECT f(…), g(…)` without more."""
    return (
        not select.HasField("into_clause")
        and not select.from_clause
        and bool(select.target_list)
        and all(kind_of(inner(target).val)[0] == "FuncCall" for target in select.target_list)
    )
