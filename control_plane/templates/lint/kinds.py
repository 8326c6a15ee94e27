"""Which statements a template may hold. What is not listed is refused, so that nothing slips through unread."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.templates.lint.rules import Fault, rules
from control_plane.templates.lint.source import Node, Statement, enum_name, inner, kind_of

_IN_TRANSACTION = {
    "CreateStmt",
    "IndexStmt",
    "ViewStmt",
    "CreateFunctionStmt",
    "CreateTrigStmt",
    "CreateStatsStmt",
    "AlterTableStmt",
    "CommentStmt",
    "LockStmt",
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
_IN_FILES = {
    "expand": _IN_TRANSACTION,
    "api": _IN_TRANSACTION,
    "contract": _IN_TRANSACTION | {"DropStmt"},
    "concurrent": {"IndexStmt", "DropStmt", "ReindexStmt", "AlterTableStmt", "AlterEnumStmt"},
    "backfill": {"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"},
    "smoke": _IN_BODIES - {"ReturnStmt"},
}

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
    "AT_AlterColumnType",  # and whether a table with rows may take it, is asked elsewhere
    "AT_DropConstraint",
}
_REMOVALS = {"AT_DropColumn", "AT_DropExpression", "AT_DropIdentity"}
_ALTERATIONS_IN = {
    "contract": _ALTERATIONS | _REMOVALS,
    "concurrent": {"AT_ValidateConstraint", "AT_DetachPartition", "AT_DetachPartitionFinalize"},
}

_PROTECTION = "tenancy.protect_table() makes the policies, and the stamp checks them"
_GRANTS = "leave it out: the stamp grants views, tables, and the functions that template.toml lists"
_OWNERS = "leave it out: cp_owner owns what a version makes, and the stamp hands definer functions over"
_SESSION = "leave it out: the runner and the pool set path, role and timeouts"
_SERVER = "leave it out; extensions are listed in template.toml"
_CONTRACT = "announce it first, and take it away in contract.sql of a later version"
_RENAME = "add the new name beside the old one, and take the old one away when nobody uses it any more"
_CONCURRENT = "write it with CONCURRENTLY, in concurrent.sql"

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
    "DropStmt": ("removal", "something is dropped while others may still use it", _CONTRACT),
    "TruncateStmt": ("removal", "TRUNCATE takes all rows, also past row-level security", "write DELETE in a function"),
    "RenameStmt": ("rename", "something is renamed, and who knows it by its name fails at once", _RENAME),
    "AlterObjectSchemaStmt": ("rename", "something moves to another schema", _RENAME),
    "AlterEnumStmt": (
        "enum-value",
        "a value that is added to an enum cannot be used before its transaction ends (55P04), and all versions on the "
        "way are one transaction",
        "add it in concurrent.sql, or use text with a CHECK",
    ),
    "ReindexStmt": ("concurrent-form", "REINDEX lets nobody write to its table until it is done", _CONCURRENT),
    "DeleteStmt": (
        "data-change",
        "rows are deleted while the version holds its locks",
        "write it into backfill.sql, in batches",
    ),
    "MergeStmt": (
        "data-change",
        "rows are changed while the version holds its locks",
        "write it into backfill.sql, in batches",
    ),
    "CreateEnumStmt": ("statement-kind", "an enum type is created", "use text with a CHECK"),
    "CreateSeqStmt": ("statement-kind", "a sequence counts for all tenants of a home", "use uuid keys"),
    "AlterFunctionStmt": ("statement-kind", "a function is changed in place", "write CREATE OR REPLACE FUNCTION"),
}  # fmt: skip

_ALTERED: dict[str, tuple[str, str, str]] = {
    "AT_EnableRowSecurity": ("rls-by-hand", "row-level security is switched by hand", _PROTECTION),
    "AT_DisableRowSecurity": ("rls-by-hand", "row-level security is switched off", _PROTECTION),
    "AT_ForceRowSecurity": ("rls-by-hand", "row-level security is switched by hand", _PROTECTION),
    "AT_NoForceRowSecurity": ("rls-by-hand", "row-level security is switched off for the owner", _PROTECTION),
    "AT_ChangeOwner": ("owner-by-hand", "an owner is changed by hand", _OWNERS),
    "AT_DropColumn": ("removal", "a column is dropped while others may still use it", _CONTRACT),
    "AT_DropExpression": ("removal", "a generated column is no longer generated", _CONTRACT),
    "AT_DropIdentity": ("removal", "a column no longer counts", _CONTRACT),
    "AT_DetachPartition": (
        "concurrent-form",
        "DETACH PARTITION takes ACCESS EXCLUSIVE on the whole table",
        _CONCURRENT,
    ),
}


# Kind of object that is dropped → (rule, what it is, what to do instead); all others are a removal.
_DROPPED = {
    "OBJECT_POLICY": ("rls-by-hand", "a policy is dropped by hand", _PROTECTION),
    "OBJECT_INDEX": ("concurrent-form", "DROP INDEX takes ACCESS EXCLUSIVE on the table of the index", _CONCURRENT),
}
_OUTSIDE = "what can run in a transaction stands in concurrent.sql, where nothing undoes it when the next one fails"


@rules
def only_known_kinds(statement: Statement) -> Iterator[tuple[str, Fault]]:
    """Every refused kind of statement: the statement itself, and those in the body that it defines."""
    file = statement.source.file
    for code, message, instead in _judge(statement.kind, statement.node, file):
        if file == "concurrent" and code == "statement-kind":
            code, message, instead = "concurrent-file", _OUTSIDE, "write it into expand.sql"
        yield code, Fault(statement.line, message, instead)
    for located in statement.tree:
        if located.kind == "Embedded" and located.node not in _IN_BODIES:
            code, message, instead = _refusal(located.node, _REFUSED, "statement")
            yield code, Fault(located.line, message, instead)


def _judge(kind: str, node: Node, file: str) -> Iterator[tuple[str, str, str]]:
    if kind == "DropStmt":
        dropped = enum_name(node, "remove_type")
        if dropped in _DROPPED or file != "contract":
            found = _DROPPED.get(dropped, _REFUSED["DropStmt"])
            if file != "concurrent" or found[0] != "concurrent-form":
                yield found
    elif kind == "AlterEnumStmt" and node.old_val:
        yield _REFUSED["RenameStmt"]
    elif kind not in _IN_FILES[file]:
        yield _refusal(kind, _REFUSED, "statement")
    elif kind == "AlterTableStmt":
        yield from _alterations(node, _ALTERATIONS_IN.get(file, _ALTERATIONS))
    elif kind == "SelectStmt" and file != "smoke" and not _is_call(node):
        yield "statement-kind", "a query's answer is lost", "call functions only: SELECT tenancy.…()"
    elif kind == "SelectStmt" and node.HasField("into_clause"):
        yield "statement-kind", "SELECT INTO makes a table", "write CREATE TABLE and INSERT"


def _refusal(kind: str, known: dict[str, tuple[str, str, str]], what: str) -> tuple[str, str, str]:
    unknown = ("statement-kind", f"a template has no use for this {what} ({kind})", "see docs/template-lint.md")
    return known.get(kind, unknown)


def _alterations(node: Node, allowed: set[str]) -> Iterator[tuple[str, str, str]]:
    if enum_name(node, "objtype") not in ("OBJECT_TABLE", "OBJECT_INDEX"):
        yield "statement-kind", "something else than a table is altered", "write CREATE OR REPLACE"
        return
    for command in map(inner, node.cmds):
        kind = enum_name(command, "subtype")
        if kind not in allowed:
            yield _refusal(kind, _ALTERED, "change")


def _is_call(select: Node) -> bool:
    """`SELECT f(…), g(…)` without more."""
    return (
        not select.HasField("into_clause")
        and not select.from_clause
        and bool(select.target_list)
        and all(kind_of(inner(target).val)[0] == "FuncCall" for target in select.target_list)
    )
