"""A template's SQL file as parsed statements, with the lines they stand at and the waivers above them.

The parser is PostgreSQL's own. It takes a moment to load, so this package is imported where a lint is due and nowhere
else.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import postgast

from control_plane.templates.lint.plpgsql import Fragment, read_body

# A message of the parse tree. Its classes are made at run time, so their attributes have no types.
Node = Any

_WAIVER = re.compile(r"--\s*lint:\s*(?P<text>.*?)\s*")
_ALLOW = re.compile(r"allow\s+(?P<rule>[a-z-]+)(\s+because\s+(?P<reason>\S.*))?")
_COMMENTS = {postgast.pg_query_pb2.Token.Value("SQL_COMMENT"), postgast.pg_query_pb2.Token.Value("C_COMMENT")}


class Unparsable(Exception):
    """The file is no SQL; `line` is where the parser stopped."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True)
class Located:
    """A node of the parse tree, the name of its kind (`RangeVar`), and its line."""

    kind: str
    node: Node
    line: int


@dataclass(slots=True)
class Waiver:
    """A comment `-- lint: allow <rule> because <reason>`; `rule` is None when it cannot be understood."""

    line: int
    text: str
    rule: str | None = None
    reason: str | None = None
    used: bool = False


@dataclass
class Statement:
    """One statement of a file."""

    source: Source
    start: int  # bytes from the start of the file
    end: int
    kind: str  # of the node: `CreateStmt`
    node: Node
    waivers: list[Waiver] = field(default_factory=list)

    @property
    def line(self) -> int:
        return self.source.line(self.start)

    @property
    def api(self) -> int | None:
        return self.source.api

    @cached_property
    def tree(self) -> list[Located]:
        """Every node of the statement and of the SQL inside the body that it defines."""
        own = located(self.node, self.line, self.source.line)
        return own + [node for fragment in self.fragments for node in fragment_tree(self, fragment)]

    @cached_property
    def fragments(self) -> tuple[Fragment, ...]:
        """The SQL inside the body of a function, unless PostgreSQL has parsed it with the statement (BEGIN ATOMIC)."""
        if self.kind != "CreateFunctionStmt":
            return ()
        options = {option.defname: option.arg for option in map(inner, self.node.options)}
        if "as" not in options or not options["as"].list.items:
            return ()
        text = options["as"].list.items[0].string.sval
        # Verbatim between dollar quotes; the body of a literal with escapes is placed at its statement.
        found = self.source.content.find(text.encode(), self.start, self.end)
        shift = found if found >= 0 else None
        if options["language"].string.sval == "sql":
            return (Fragment("statements", text, shift, shift),)
        if options["language"].string.sval == "plpgsql":
            return tuple(read_body(text, shift))
        return ()

    def line_at(self, position: int | None) -> int:
        return self.line if position is None else self.source.line(position)

    @property
    def transactional(self) -> bool:
        """Whether it runs in the one transaction that brings a home to the version."""
        return self.source.file in ("expand", "api", "contract")


class Source:
    """A parsed file; raises `Unparsable`. `api` is the API version whose schema it fills, None for the base schema.

    `file` says what it is for: `expand`, `api` and `contract` are one transaction; `concurrent`, `backfill`, `smoke`.
    """

    def __init__(self, label: str, text: str, api: int | None = None) -> None:
        self.label = label
        self.api = api
        self.file = re.split(r"[_.]", label.rpartition("/")[2], maxsplit=1)[0]
        self.content = text.encode()
        self._starts = [0, *(match.end() for match in re.finditer(rb"\n", self.content))]
        try:
            tree = postgast.parse(text)
            tokens = postgast.scan(text).tokens
        except postgast.PgQueryError as error:
            raise Unparsable(self.line(max(error.cursorpos - 1, 0)), error.message) from error
        self.statements = [
            Statement(
                self,
                raw.stmt_location,
                raw.stmt_location + raw.stmt_len if raw.stmt_len else len(self.content),
                *kind_of(raw.stmt),
            )
            for raw in tree.stmts
        ]
        self.waivers = [
            waiver
            for token in tokens
            if token.token in _COMMENTS
            if (waiver := self._waiver(self.content[token.start : token.end].decode(), token.start))
        ]

    def line(self, position: int) -> int:
        """The line, from 1, of a byte."""
        return bisect_right(self._starts, position)

    def _waiver(self, comment: str, position: int) -> Waiver | None:
        match = _WAIVER.fullmatch(comment.rstrip())
        if match is None:
            return None
        allow = _ALLOW.fullmatch(match["text"])
        waiver = Waiver(self.line(position), match["text"])
        if allow is not None:
            waiver.rule, waiver.reason = allow["rule"], allow["reason"]
        following = (statement for statement in self.statements if statement.start > position)
        if statement := next(following, None):
            statement.waivers.append(waiver)
        return waiver


def inner(node: Node) -> Node:
    """The message inside a `Node`, which wraps one of all kinds."""
    return postgast.unwrap_node(node)


def kind_of(node: Node) -> tuple[str, Node]:
    inside = inner(node)
    return type(inside).DESCRIPTOR.name, inside


def enum_name(node: Node, field: str) -> str:
    """The name of the value of a field that is an enum."""
    return str(node.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[getattr(node, field)].name)


def located(node: Node, line: int, line_of: Callable[[int], int]) -> list[Located]:
    """`node` and all below it; a node that knows no position stands at the line of the one above it."""
    found: list[Located] = []
    waiting = [(node, line)]
    while waiting:
        node, line = waiting.pop()
        node = inner(node)
        descriptor = type(node).DESCRIPTOR
        if "location" in descriptor.fields_by_name and node.location > 0:
            line = line_of(node.location)
        found.append(Located(descriptor.name, node, line))
        below = [
            (child, line)
            for of, value in node.ListFields()
            if of.message_type is not None
            for child in ([value] if hasattr(value, "ListFields") else value)
        ]
        waiting += reversed(below)
    return found


def fragment_tree(statement: Statement, fragment: Fragment) -> Iterator[Located]:
    """The nodes of a piece of a function's body; a piece that cannot be read is one node of kind `Unread`."""
    line = statement.line_at(fragment.position)
    if fragment.kind not in ("statement", "statements", "expression"):
        yield Located(fragment.kind, fragment, line)
        return
    prefix = "SELECT " if fragment.kind == "expression" else ""
    try:
        tree = postgast.parse(prefix + fragment.text)
    except postgast.PgQueryError:
        yield Located("Unread", fragment, line)
        return

    def line_of(position: int) -> int:
        return line if fragment.shift is None else statement.source.line(fragment.shift + position - len(prefix))

    for raw in tree.stmts:
        kind, node = kind_of(raw.stmt)
        yield Located("Embedded", kind, line)
        yield from located(node, line, line_of)
