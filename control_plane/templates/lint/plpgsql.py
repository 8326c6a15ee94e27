"""The SQL inside a PL/pgSQL body, found by the structure of the language.

libpg_query has a parser for PL/pgSQL too, but it stops at types that it does not know (%ROWTYPE, those of a schema) and
writes broken JSON for trigger functions. PL/pgSQL itself reads SQL up to a closing word at the outermost level of
parentheses; so does this reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import postgast

_SQL_COMMENT = postgast.pg_query_pb2.Token.Value("SQL_COMMENT")
_C_COMMENT = postgast.pg_query_pb2.Token.Value("C_COMMENT")
_NO_SQL = {"get", "fetch", "move", "close", "null", "end"}
_STRUCTURE = {"begin", "else", "exception", "loop"}


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of a body.

    `kind`: `statement`, `statements` or `expression` (SQL to parse), or what the piece is by itself: `DynamicSql`,
    `TransactionStmt`, `TypeReference`, `Unread`. `position` and `shift` are bytes from the start of the file, of the
    piece and of the start of `text`; None where the body stands in a literal with escapes.
    """

    kind: str
    text: str
    position: int | None
    shift: int | None


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        return self.text.lower()


def read_body(text: str, shift: int | None) -> Iterator[Fragment]:
    """The pieces of a body that starts `shift` bytes into its file."""
    return _Reader(text, shift).read()


class _Reader:
    def __init__(self, text: str, shift: int | None) -> None:
        self.content = text.encode()
        self.shift = shift
        self.tokens = [
            _Token(self.content[token.start : token.end].decode(), token.start, token.end)
            for token in postgast.scan(text).tokens
            if token.token not in (_SQL_COMMENT, _C_COMMENT)
        ]
        self.at = 0

    def read(self) -> Iterator[Fragment]:
        while self.at < len(self.tokens):
            word = self._next().word
            if word == ";" or word in _STRUCTURE:
                continue
            if word == "<<":
                self._until(">>")
            elif word == "declare":
                yield from self._declarations()
            elif word in ("if", "elsif", "elseif", "when"):
                yield from self._expression("then")
            elif word == "while":
                yield from self._expression("loop")
            elif word == "case":
                yield from self._expression("when")
            elif word in ("for", "foreach"):
                yield from self._loop()
            else:
                yield from self._statement(word)

    def _statement(self, word: str) -> Iterator[Fragment]:
        """A statement that ends with a semicolon; its first word has been read."""
        first = self.at - 1
        rest = self._until(";")
        if word in _NO_SQL:
            return
        if word == "return":
            yield from self._return(rest)
        elif word in ("perform", "assert"):
            yield from self._sql("expression", rest)
        elif word in ("exit", "continue"):
            when = next((n for n, token in enumerate(rest) if token.word == "when"), len(rest))
            yield from self._sql("expression", rest[when + 1 :])
        elif word == "raise":
            yield from self._raise(rest)
        elif word == "execute":
            yield self._mark("DynamicSql", self.tokens[first])
        elif word in ("commit", "rollback"):
            yield self._mark("TransactionStmt", self.tokens[first])
        elif word == "open":
            yield from self._open(rest)
        elif (assigned := self._assignment([self.tokens[first], *rest])) is not None:
            yield from self._sql("expression", assigned)
        else:
            yield from self._sql("statement", [self.tokens[first], *rest])

    def _declarations(self) -> Iterator[Fragment]:
        while self.at < len(self.tokens) and self.tokens[self.at].word != "begin":
            yield from self._declaration(self._until(";"))

    def _declaration(self, tokens: list[_Token]) -> Iterator[Fragment]:
        words = [token.word for token in tokens]
        if "cursor" in words[1:4]:
            start = next((n for n, word in enumerate(words) if word in ("for", "is")), len(words))
            yield from self._sql("statement", tokens[start + 1 :])
            return
        value = next((n for n, word in enumerate(words) if word in (":=", "=", "default")), len(words))
        yield from self._type(tokens[1:value])
        yield from self._sql("expression", tokens[value + 1 :])

    def _type(self, tokens: list[_Token]) -> Iterator[Fragment]:
        """`tenancy.x`, `other.tb_x%ROWTYPE`, `other.tb_x.id%TYPE`; `tb_x.id%TYPE` names no schema."""
        words = [token.word for token in tokens]
        dots = words.count(".")
        if dots > (1 if "%" in words and "type" in words else 0):
            name = next(n for n, word in enumerate(words) if word == ".") - 1
            yield self._mark("TypeReference", tokens[name])

    def _loop(self) -> Iterator[Fragment]:
        """`FOR x IN … LOOP`, `FOREACH x SLICE 1 IN ARRAY … LOOP`."""
        self._until("in")
        head = self._until("loop")
        words = [token.word for token in head]
        if words[:1] == ["execute"]:
            yield self._mark("DynamicSql", head[0])
        elif words[:1] in (["array"], ["reverse"]) or ".." in words:
            bounds = head[1:] if words[0] in ("array", "reverse") else head
            by = next((n for n, token in enumerate(bounds) if token.word == "by"), len(bounds))
            for part in (*self._split(bounds[:by], ".."), bounds[by + 1 :]):
                yield from self._sql("expression", part)
        elif words[:1] and words[0] in ("select", "with", "insert", "update", "delete", "merge", "values", "("):
            yield from self._sql("statement", head)
        else:  # a cursor, with arguments or without
            yield from self._sql("expression", head)

    def _return(self, rest: list[_Token]) -> Iterator[Fragment]:
        words = [token.word for token in rest[:2]]
        if words == ["query", "execute"]:
            yield self._mark("DynamicSql", rest[1])
        elif words[:1] == ["query"]:
            yield from self._sql("statement", rest[1:])
        else:
            yield from self._sql("expression", rest[1:] if words[:1] == ["next"] else rest)

    def _open(self, rest: list[_Token]) -> Iterator[Fragment]:
        words = [token.word for token in rest]
        if "for" not in words:
            yield from self._sql("expression", rest)
        elif "execute" in words[words.index("for") : words.index("for") + 2]:
            yield self._mark("DynamicSql", rest[words.index("execute")])
        else:
            yield from self._sql("statement", rest[words.index("for") + 1 :])

    def _raise(self, rest: list[_Token]) -> Iterator[Fragment]:
        """The arguments of the format, and the values of the options after USING."""
        depth = 0
        using = len(rest)
        for n, token in enumerate(rest):
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if token.word == "using" and depth == 0:
                using = n
                break
        for argument in self._split(rest[:using], ",")[1:]:
            yield from self._sql("expression", argument)
        for option in self._split(rest[using + 1 :], ","):
            yield from self._sql("expression", option[2:])

    def _assignment(self, tokens: list[_Token]) -> list[_Token] | None:
        """What stands right of `:=` or `=` in `name.field[1] := …`; None when it is no assignment."""
        depth = 0
        for n, token in enumerate(tokens):
            depth += {"[": 1, "]": -1}.get(token.text, 0)
            if depth == 0 and n and token.text in (":=", "="):
                return tokens[n + 1 :]
            if depth == 0 and token.text not in (".", "]") and n and tokens[n - 1].text != ".":
                return None
        return None

    def _expression(self, closing: str) -> Iterator[Fragment]:
        yield from self._sql("expression", self._until(closing))
        if closing == "when":
            self.at -= 1  # of CASE x WHEN …, which is read as the start of the branch

    def _sql(self, kind: str, tokens: list[_Token]) -> Iterator[Fragment]:
        if not tokens:
            return
        start, end = tokens[0].start, tokens[-1].end
        content = bytearray(self.content[start:end])
        if kind == "statement":
            for token in self._targets(tokens):
                content[token.start - start : token.end - start] = b" " * (token.end - token.start)
        position = None if self.shift is None else self.shift + start
        yield Fragment(kind, content.decode(), position, position)

    def _targets(self, tokens: list[_Token]) -> Iterator[_Token]:
        """INTO and the variables after it, which PL/pgSQL takes out before it hands the statement on."""
        depth, n = 0, 0
        while n < len(tokens):
            depth += {"(": 1, ")": -1}.get(tokens[n].text, 0)
            if tokens[n].word != "into" or depth or n == 0 or tokens[n - 1].word in ("insert", "merge"):
                n += 1
                continue
            last = n
            n += 2 if n + 1 < len(tokens) and tokens[n + 1].word == "strict" else 1
            while n + 1 < len(tokens) and tokens[n + 1].text in (".", ","):
                n += 2
            yield from tokens[last : n + 1]
            n += 1

    def _split(self, tokens: list[_Token], separator: str) -> list[list[_Token]]:
        """At each `separator` outside of parentheses."""
        parts: list[list[_Token]] = [[]]
        depth = 0
        for token in tokens:
            depth += {"(": 1, ")": -1, "[": 1, "]": -1}.get(token.text, 0)
            if token.text == separator and depth == 0:
                parts.append([])
            else:
                parts[-1].append(token)
        return parts

    def _next(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def _until(self, closing: str) -> list[_Token]:
        """The tokens before `closing` at the outermost level; `closing` is read too."""
        first, depth = self.at, 0
        while self.at < len(self.tokens):
            token = self._next()
            depth += {"(": 1, ")": -1, "[": 1, "]": -1}.get(token.text, 0)
            if token.word == closing and depth <= 0:
                return self.tokens[first : self.at - 1]
        return self.tokens[first:]

    def _mark(self, kind: str, token: _Token) -> Fragment:
        position = None if self.shift is None else self.shift + token.start
        return Fragment(kind, token.text, position, position)
