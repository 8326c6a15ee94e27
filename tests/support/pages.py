"""The examples of docs/patterns, as blocks that can be run and checked; docs/patterns/README.md has the notation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import httpx

API = 2  # the version whose schema is first on the path of SQL examples

_BLOCK = re.compile(
    r"^```(?P<kind>\w+)(?P<options>[^\n]*)\n(?P<text>.*?)^```$|^<!-- (?P<word>save|roles)\b(?P<rest>[^\n]*?) *-->$",
    re.DOTALL | re.MULTILINE,
)
_RUN = ("sql", "http", "json", "ndjson")
# A statement ends with a semicolon at the end of a line, outside $$ … $$.
_STATEMENT = re.compile(
    r"(?P<sql>(?:\$\$.*?\$\$|(?!\$\$).)+?;)(?:[ \n]+-- => (?P<expected>[^\n]*)|[ ]*--[^\n]*)?(?=\n|\Z)", re.DOTALL
)
_REQUEST = re.compile(
    r"(?P<method>GET|POST|HEAD) (?P<target>/\S+)(?P<headers>(?:\n[A-Za-z-]+: [^\n]+)*)\s*(?P<body>\{.*\})?\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One block or comment of a page: sql, http, json, ndjson, save or roles; `options` is what follows the kind."""

    kind: str
    options: str
    text: str
    place: str  # page:line, for the reader of a failure


@dataclass(frozen=True)
class Statement:
    sql: str
    expected: str | None


class Caller(Protocol):
    """Whoever makes the calls of a page: `roles` are those of the token from now on."""

    def headers(self, roles: Sequence[str]) -> dict[str, str]: ...


def read_page(path: Path) -> list[Block]:
    """The blocks that are run, in order."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        place = f"{path.name}:{text.count(chr(10), 0, match.start()) + 1}"
        if match["word"]:
            found.append(Block(match["word"], match["rest"].strip(), "", place))
        elif match["kind"] in _RUN:
            found.append(Block(match["kind"], match["options"].strip(), match["text"], place))
    return found


def statements(text: str) -> list[Statement]:
    """The statements of an sql block, each with the value that the line after it promises."""
    found = [Statement(match["sql"].strip(), match["expected"]) for match in _STATEMENT.finditer(text)]
    assert text.count("-- =>") == sum(each.expected is not None for each in found), f"a value of no statement: {text}"
    rest = _STATEMENT.sub("", text)
    assert not re.sub(r"^--(?! =>)[^\n]*$", "", rest, flags=re.MULTILINE).strip(), f"what is this: {rest.strip()}"
    return found


def matches(expected: Any, actual: Any) -> bool:
    """Whether `actual` has all that `expected` names; "…" is any value, and any further elements of a list."""
    if expected == "…":
        return True
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(
            key in actual and matches(value, actual[key]) for key, value in expected.items()
        )
    if isinstance(expected, list):
        if not isinstance(actual, list):
            return False
        if expected and expected[-1] == "…":
            expected = expected[:-1]
            actual = actual[: len(expected)]
        return len(expected) == len(actual) and all(map(matches, expected, actual))
    return type(expected) is type(actual) and bool(expected == actual)


async def run_sql(blocks: Sequence[Block], connection: asyncpg.Connection) -> None:
    """Run the sql blocks in the open transaction of `connection`; raises AssertionError that names the place."""
    for block in blocks:
        if block.kind == "roles":
            await connection.execute("SELECT set_config('app.current_roles', $1::text[]::text, true)", _roles(block))
        elif block.kind == "sql" and block.options:
            await _run_failing(block, connection)
        elif block.kind == "sql":
            for statement in statements(block.text):
                await _run_statement(block.place, statement, connection)


async def _run_statement(place: str, statement: Statement, connection: asyncpg.Connection) -> None:
    try:
        prepared = await connection.prepare(statement.sql)
        rows = await prepared.fetch()
    except asyncpg.PostgresError as error:
        raise AssertionError(f"{place}: {statement.sql}\n{error.sqlstate} {error}") from error
    if statement.expected is None:
        return
    assert [len(row) for row in rows] == [1], f"{place}: {statement.sql}\nreturns not one value but {rows}"
    is_json = prepared.get_attributes()[0].type.name in ("json", "jsonb")
    value = rows[0][0]
    actual = json.loads(value) if is_json and value is not None else value
    assert _is(statement.expected.strip(), actual), f"{place}: {statement.sql}\nreturns {actual!r}"


def _is(expected: str, actual: Any) -> bool:
    try:
        if matches(json.loads(expected), actual):
            return True
    except ValueError:
        pass
    return not isinstance(actual, dict | list) and str(actual) == expected


async def _run_failing(block: Block, connection: asyncpg.Connection) -> None:
    name, _, sqlstate = block.options.partition("=")
    assert name == "error", f"{block.place}: what is {block.options}?"
    savepoint, raised = connection.transaction(), None
    await savepoint.start()
    try:
        for statement in statements(block.text):
            await connection.execute(statement.sql)
        # A check that is made at commit is made now.
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except asyncpg.PostgresError as error:
        raised = error
    finally:
        await savepoint.rollback()
    found = raised.sqlstate if raised else None
    assert found == sqlstate, f"{block.place}: should fail with {sqlstate}, not with {found} {raised}"


def _roles(block: Block) -> list[str]:
    return block.options.removeprefix("=").replace(",", " ").split()


@dataclass
class HttpRun:
    """Runs the http blocks of a page against one tenant. `saved` are the values that blocks may name as {{name}}."""

    client: httpx.AsyncClient
    caller: Caller
    saved: dict[str, str] = field(default_factory=dict)
    roles: list[str] = field(default_factory=list)
    last: httpx.Response | None = None

    async def run(self, blocks: Sequence[Block]) -> None:
        """Raises AssertionError that names the place."""
        for block, following in _pairs([block for block in blocks if block.kind != "sql"]):
            if block.kind == "roles":
                self.roles = _roles(block)
            elif block.kind == "save":
                self._save(block)
            elif block.kind == "json":
                self._check(block)
            elif block.kind == "ndjson":
                self._check_lines(block)
            else:
                await self._call(block, checked=following == "json")

    async def _call(self, block: Block, *, checked: bool) -> None:
        request = _REQUEST.fullmatch(self._fill(block))
        assert request, f"{block.place}: is not a request"
        body = json.loads(request["body"]) if request["body"] else None
        given = dict(line.split(": ", 1) for line in request["headers"].splitlines() if line)
        self.last = await self.client.request(
            request["method"], request["target"], json=body, headers=self.caller.headers(self.roles) | given
        )
        if not checked:
            assert self.last.status_code < 400, f"{block.place}: {self.last.status_code} {self.last.text}"

    def _check(self, block: Block) -> None:
        assert self.last is not None, f"{block.place}: is the answer to nothing"
        answer = f"{self.last.status_code} {self.last.text}"
        if not block.text.strip():
            assert (self.last.status_code, self.last.content) == (int(block.options), b""), f"{block.place}: {answer}"
            return
        expected = json.loads(self._fill(block))
        refusal = isinstance(expected, dict) and (expected.get("success") is False or "status" in expected)
        if block.options:
            assert self.last.status_code == int(block.options), f"{block.place}: {answer}"
        else:
            assert (self.last.status_code >= 400) == refusal, f"{block.place}: {answer}"
        assert matches(expected, self.last.json()), f"{block.place}: {answer}"

    def _check_lines(self, block: Block) -> None:
        assert self.last is not None, f"{block.place}: is the answer to nothing"
        expected, actual = self._fill(block).splitlines(), self.last.text.splitlines()
        same = len(expected) == len(actual) and all(map(matches, map(json.loads, expected), map(json.loads, actual)))
        assert same, f"{block.place}: {self.last.text}"

    def _save(self, block: Block) -> None:
        name, _, path = (part.strip() for part in block.options.partition("="))
        assert self.last is not None, f"{block.place}: there is no answer to save from"
        self.saved[name] = self._value(self.last, path, block.place)

    def _value(self, answer: httpx.Response, path: str, place: str) -> str:
        where, _, named = path.partition(":")
        if where == "link":
            assert named in answer.links, f"{place}: there is no such link"
            return str(answer.links[named]["url"])
        if where == "header":
            assert named in answer.headers, f"{place}: there is no such header"
            return answer.headers[named]
        value = answer.json()
        for step in path.split("."):
            value = value[int(step)] if isinstance(value, list) else value[step]
        return str(value)

    def _fill(self, block: Block) -> str:
        def value(match: re.Match[str]) -> str:
            assert match[1] in self.saved, f"{block.place}: nothing was saved as {match[1]}"
            return self.saved[match[1]]

        return re.sub(r"\{\{(\w+)\}\}", value, block.text)


def _pairs(blocks: Sequence[Block]) -> Iterator[tuple[Block, str | None]]:
    """Each block with the kind of the next."""
    for position, block in enumerate(blocks):
        yield block, blocks[position + 1].kind if position + 1 < len(blocks) else None
