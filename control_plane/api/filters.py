"""One filter of a query string in PostgREST's words, `[not.]operator.value`, as a condition of the gated statement.

Only what the template declares of a column is let through, and only values of the form of the column's type: whatever
is refused here never reaches a connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from control_plane.pools.listing import Condition
from control_plane.templates import Resource

MAX_LISTED = 1000  # values of one in.()

_UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
# 'now' and 'infinity' are times to PostgreSQL, and to it 'on' is true: here a value is what it looks like.
_FORMS: dict[str, tuple[re.Pattern[str], str]] = {
    "uuid": (re.compile(_UUID), "a uuid"),
    "boolean": (re.compile("true|false"), "true or false"),
    "integer": (re.compile("-?[0-9]{1,10}"), "a whole number of 32 bits"),
    "bigint": (re.compile("-?[0-9]{1,19}"), "a whole number of 64 bits"),
    "numeric": (re.compile(r"-?[0-9]{1,50}(\.[0-9]{1,50})?"), "a number such as 12.50"),
    "date": (re.compile(_DATE), "a date such as 2026-03-01"),
    "timestamptz": (
        re.compile(rf"{_DATE}([T ]{_CLOCK}(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)?)?"),
        "a time such as 2026-03-01T12:00:00Z, with + written as %2B",
    ),
}
_BITS = {"integer": 31, "bigint": 63}
_STATES = ("null", "not_null", "true", "false")
# An element of in.(): in double quotes, with a backslash before a quote or a backslash, or as far as the next comma.
_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"(?=[,)])|([^,)]*)', re.DOTALL)


class RefusedParameter(Exception):
    """Why one parameter is refused, and what would be taken instead."""

    def __init__(self, message: str, allowed: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.allowed = list(allowed)


def parse_filter(column: str, text: str, resource: Resource) -> tuple[Condition, str | tuple[str, ...] | None]:
    """The condition and its value, None with `is`; raises `RefusedParameter`."""
    operators = resource.filters[column]
    type_ = resource.columns[column]
    negated = text.startswith("not.")
    operator, dot, value = text.removeprefix("not.").partition(".")
    if not dot or operator not in operators:
        raise RefusedParameter("needs an operator that is declared, as in eq.value", operators)
    if operator == "is":
        return Condition(column, operator, type_, negated, _state(value.lower(), type_)), None
    condition = Condition(column, operator, type_, negated)
    if operator == "in":
        return condition, tuple(_checked(each, type_) for each in _listed(value))
    if operator in ("like", "ilike"):
        return condition, _pattern(_checked(value, type_))
    return condition, _checked(value, type_)


def _state(value: str, type_: str) -> str:
    states = _STATES if type_ == "boolean" else _STATES[:2]
    if value not in states:
        raise RefusedParameter("is none of the states of this column", [f"is.{state}" for state in states])
    return value


def _listed(text: str) -> list[str]:
    """The elements of (a,b,"c,d")."""
    if text == "()":
        return []
    elements, place = [], 1
    while text.startswith("(") and (match := _ELEMENT.match(text, place)):
        quoted, bare = match.groups()
        elements.append(bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        place = match.end() + 1
        if text[match.end() : place] != ",":
            break
    if place != len(text) or not text.endswith(")"):
        raise RefusedParameter('needs a list in parentheses, as in in.(a,b,"c,d")')
    if len(elements) > MAX_LISTED:
        raise RefusedParameter(f"takes a list of up to {MAX_LISTED} values")
    return elements


def _pattern(text: str) -> str:
    backslashes = len(text) - len(text.rstrip("\\"))
    if backslashes % 2:
        raise RefusedParameter("has a pattern that ends in a backslash, which would escape nothing")
    return text.replace("*", "%")


def _checked(value: str, type_: str) -> str:
    if "\0" in value:
        raise RefusedParameter("holds a NUL")
    if type_ in _FORMS:
        pattern, what = _FORMS[type_]
        fits = pattern.fullmatch(value) is not None
        if fits and type_ in _BITS:
            fits = -(2 ** _BITS[type_]) <= int(value) < 2 ** _BITS[type_]
        if not fits:
            raise RefusedParameter(f"needs {what}")
    return value
