"""The query string of a function that only reads: each argument becomes a value of its declared type, or a string."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from control_plane.api.arguments import arguments
from control_plane.errors import InvalidInput
from control_plane.templates import FieldRule

DECLARED = {
    "text": FieldRule(type="string"),
    "id": FieldRule(type="uuid"),
    "number": FieldRule(type="integer"),
    "price": FieldRule(type="decimal"),
    "open": FieldRule(type="boolean"),
    "day": FieldRule(type="date"),
    "object": FieldRule(type="object"),
    "list": FieldRule(type="array"),
    "numbers": FieldRule(type="array", items=FieldRule(type="integer")),
}


def text(query: str, declared: dict[str, FieldRule] | None = None) -> str:
    return arguments(query.encode(), DECLARED if declared is None else declared)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("text", "", ""),
        ("text", "5", "5"),
        ("text", "null", "null"),
        ("text", '{"a": 1}', '{"a": 1}'),
        ("text", 'a"\\\n\u0000ü😀', 'a"\\\n\u0000ü😀'),
        ("day", "2026-03-01", "2026-03-01"),
        ("id", "7", "7"),
        ("number", "-12", -12),
        ("number", "0", 0),
        ("number", "012", "012"),
        ("number", "1.0", "1.0"),
        ("number", "1e3", "1e3"),
        ("number", " 1", " 1"),
        ("number", "1,2", "1,2"),
        ("number", "", ""),
        ("number", "١", "١"),
        ("price", "-12.5", -12.5),
        ("price", "12", 12),
        ("price", ".5", ".5"),
        ("price", "NaN", "NaN"),
        ("open", "true", True),
        ("open", "false", False),
        ("open", "True", "True"),
        ("open", "1", "1"),
        ("object", '{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ("object", "5", 5),
        ("object", '{"a": 1', '{"a": 1'),
        ("object", '{"a": 1}, "b": {}', '{"a": 1}, "b": {}'),
        ("object", '{"a": NaN}', '{"a": NaN}'),
        ("object", "x", "x"),
        ("list", '["a", 1]', ["a", 1]),
        ("list", "{}", []),
        ("list", "{a,b c,1}", ["a", "b c", "1"]),
        ("list", r'{"a,b","{","\"\\",NULL,"null",""}', ["a,b", "{", '"\\', None, "null", ""]),
        ("list", "{a,}", "{a,}"),
        ("list", "{,a}", "{,a}"),
        ("list", "{a", "{a"),
        ("list", '{"a"b}', '{"a"b}'),
        ("list", "{{a}}", "{{a}}"),
        ("numbers", "{1,-2,x}", [1, -2, "x"]),
        ("numbers", "[1,2]", [1, 2]),
    ],
)
def test_an_argument_has_its_declared_type_where_it_has_the_form_of_it(name: str, given: str, expected: Any) -> None:
    assert json.loads(text(f"{name}={quote(given)}")) == {name: expected}


def test_digits_are_kept_and_nesting_has_an_end() -> None:
    assert text("price=1.10&number=123456789012345678901234567890") == (
        '{"price":1.10,"number":123456789012345678901234567890}'
    )
    assert text("object=" + quote('{"a":1.10}')) == '{"object":{"a":1.10}}'
    deep = "[" * 100_000 + "]" * 100_000
    assert json.loads(text(f"list={deep}")) == {"list": deep}


@pytest.mark.parametrize(
    ("query", "message", "allowed"),
    [
        ("secret=1", "is no argument of the function", [*DECLARED]),
        ("text=1&text=2", "is given more than once", None),
        ("select=id", "is no argument of the function", [*DECLARED]),
        ("Text=1", "is no argument of the function", [*DECLARED]),
    ],
)
def test_what_is_not_declared_is_refused_with_what_is(query: str, message: str, allowed: list[str] | None) -> None:
    with pytest.raises(InvalidInput) as raised:
        text(query)
    (entry,) = raised.value.errors
    assert (entry["message"], entry.get("allowed")) == (message, allowed)
    assert raised.value.hint


def test_select_all_is_left_aside_unless_it_is_an_argument() -> None:
    assert text("select=*", {}) == "{}"
    assert text("select=%2A&number=1") == '{"number":1}'
    assert json.loads(text("select=*", {"select": FieldRule(type="string")})) == {"select": "*"}


@pytest.mark.parametrize("query", ["text=%ff", "&".join(f"a{n}=1" for n in range(60))], ids=["not UTF-8", "too many"])
def test_a_query_string_that_is_none_is_refused(query: str) -> None:
    with pytest.raises(InvalidInput):
        text(query)
