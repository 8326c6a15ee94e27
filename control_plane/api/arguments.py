"""The query string of a function that only reads, as the JSON object that it takes.

An argument that has the form of its declared type becomes a value of it. Any other stays a string, which the function
refuses in its own words, as it would in the body of a POST.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NoReturn

from control_plane.api.query import parameters
from control_plane.errors import InvalidInput
from control_plane.templates import FieldRule

_STRING = FieldRule(type="string")
# What is also JSON as it stands, digit for digit.
_LITERALS = {
    "integer": re.compile("-?(0|[1-9][0-9]{0,99})"),
    "decimal": re.compile(r"-?(0|[1-9][0-9]{0,99})(\.[0-9]{1,99})?"),
    "boolean": re.compile("true|false"),
}
# PostgreSQL's way to write an array, in which PostgREST's clients send theirs: {a,"b,c",NULL}.
_ELEMENT = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^{},"\\]+))(?:,(?!\Z)|\Z)', re.DOTALL)


def arguments(query: bytes, declared: Mapping[str, FieldRule]) -> str:
    """The text of the object; raises `InvalidInput` that names the arguments which are not declared or given twice.

    `select=*` is left aside unless it is declared: the clients add it where an answer is a document.
    """
    members: dict[str, str] = {}
    errors: list[dict[str, object]] = []
    for name, text in parameters(query):
        if name in members:
            errors.append({"parameter": name[:63], "message": "is given more than once"})
        elif name in declared:
            members[name] = _value(text, declared[name])
        elif (name, text) != ("select", "*"):
            errors.append({"parameter": name[:63], "message": "is no argument of the function", "allowed": [*declared]})
    if errors:
        known = ", ".join(declared)
        raise InvalidInput(
            f"The parameter {errors[0]['parameter']} {errors[0]['message']}.",
            hint=f"Allowed here: {known}." if known else "The function takes no arguments.",
            errors=errors,
        )
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in members.items()) + "}"


def _value(text: str, rule: FieldRule) -> str:
    """`text` as JSON."""
    literal = _LITERALS.get(rule.type)
    if literal is not None and literal.fullmatch(text):
        return text
    if rule.type == "array" and text.startswith("{") and text.endswith("}"):
        elements = _elements(text[1:-1], rule.items or _STRING)
        if elements is not None:
            return "[" + ",".join(elements) + "]"
    if rule.type in ("object", "array") and _is_json(text):
        return text
    return json.dumps(text)


def _elements(text: str, rule: FieldRule) -> list[str] | None:
    """What stands between the braces; None when that is no list."""
    elements, place = [], 0
    while place < len(text):
        match = _ELEMENT.match(text, place)
        if match is None:
            return None
        quoted, bare = match.groups()
        if quoted is not None:
            elements.append(_value(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL), rule))
        else:
            elements.append("null" if bare.lower() == "null" else _value(bare, rule))
        place = match.end()
    return elements


def _is_json(text: str) -> bool:
    """Whether it is one JSON value and nothing else: it becomes a part of a larger text."""
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and Infinity are Python's, not JSON's
