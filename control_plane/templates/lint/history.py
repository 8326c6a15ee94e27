"""A template as it grows: one version after the other, each on the rows that tenants have in what came before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from control_plane.templates.lint.source import Node, Source, Statement, enum_name, inner, kind_of
from control_plane.templates.manifest import Manifest


@dataclass(frozen=True, slots=True)
class VersionSource:
    """The parsed files of one version."""

    number: int
    sources: Sequence[Source]

    @property
    def statements(self) -> Iterator[Statement]:
        return (statement for source in self.sources for statement in source.statements)


@dataclass(frozen=True, slots=True)
class History:
    """The versions of a template in order, for rules that compare them."""

    manifest: Manifest
    versions: Sequence[VersionSource]


class Step:
    """One version, and what those before it have made."""

    def __init__(self, manifest: Manifest, version: VersionSource, earlier: Sequence[VersionSource]) -> None:
        self.manifest = manifest
        self.number = version.number
        self._version = version
        self._earlier = earlier

    def statements(self, *kinds: str) -> Iterator[Statement]:
        """Those of the version's transaction, in the order in which they run; only of these kinds, where given."""
        return (each for each in self._version.statements if each.transactional and (not kinds or each.kind in kinds))

    @property
    def everything(self) -> Iterator[Statement]:
        return self._version.statements

    def in_file(self, file: str) -> Iterator[Statement]:
        return (each for each in self._version.statements if each.source.file == file)

    def has_rows(self, table: str) -> bool:
        """Whether tenants may have rows in it: this version does not make it, and is not the first."""
        return self.number > 1 and table not in self._made

    def alterations(self, *subtypes: str) -> Iterator[tuple[Statement, str, Node]]:
        """Changes of tables that have rows, and of none else: statement, table, change."""
        for statement in self.statements("AlterTableStmt"):
            table = statement.node.relation.relname
            if enum_name(statement.node, "objtype") == "OBJECT_TABLE" and self.has_rows(table):
                for command in map(inner, statement.node.cmds):
                    if enum_name(command, "subtype") in subtypes:
                        yield statement, table, command

    @cached_property
    def never_null(self) -> frozenset[tuple[str, str]]:
        """Table and column of each validated CHECK (… IS NOT NULL) of an earlier version."""
        return frozenset((table, column) for (table, _), (column, valid) in self.null_checks.items() if valid)

    @cached_property
    def null_checks(self) -> dict[tuple[str, str], tuple[str, bool]]:
        """Table and name of each CHECK (… IS NOT NULL) of an earlier version → its column, and whether it is valid."""
        found: dict[tuple[str, str], tuple[str, bool]] = {}
        for statement in (each for version in self._earlier for each in version.statements):
            if statement.kind != "AlterTableStmt":
                continue
            table = statement.node.relation.relname
            for command in map(inner, statement.node.cmds):
                subtype = enum_name(command, "subtype")
                if subtype == "AT_AddConstraint":
                    constraint = inner(getattr(command, "def"))
                    if column := _checked_not_null(constraint):
                        found[table, constraint.conname] = column, not constraint.skip_validation
                elif subtype == "AT_ValidateConstraint" and (table, command.name) in found:
                    found[table, command.name] = found[table, command.name][0], True
        return found

    @cached_property
    def _made(self) -> frozenset[str]:
        return frozenset(statement.node.relation.relname for statement in self.statements("CreateStmt"))


def _checked_not_null(constraint: Node) -> str | None:
    if enum_name(constraint, "contype") != "CONSTR_CHECK":
        return None
    kind, test = kind_of(constraint.raw_expr)
    if kind != "NullTest" or enum_name(test, "nulltesttype") != "IS_NOT_NULL":
        return None
    kind, column = kind_of(test.arg)
    return str(inner(column.fields[-1]).sval) if kind == "ColumnRef" else None


def steps(history: History) -> Iterator[Step]:
    for index, version in enumerate(history.versions):
        yield Step(history.manifest, version, history.versions[:index])
