"""The query string of a list: filters, order, limit, offset and select in PostgREST's words, and our own cursor.

What a caller may name is what the template declares: each identifier that reaches a statement is one of its own. All
else is refused, all of it at once, with what would be allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from control_plane.api.filters import RefusedParameter, parse_filter
from control_plane.errors import InvalidInput
from control_plane.pools.listing import WAYS, Listing, Shape, Sort
from control_plane.templates import RESERVED_PARAMETERS, Resource

MAX_OFFSET = 2**31 - 1
MAX_PARAMETERS = 50
MAX_KEYS = 100
NO_LIMIT = 2**62  # rows

_NUMBER = re.compile(r"[0-9]{1,10}")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_CURSOR = re.compile(r"[nNpP][A-Za-z0-9_-]{1,16384}")
_DIRECTIONS = {"asc": False, "desc": True}
_NULLS = {"nullsfirst": True, "nullslast": False}
_UNSUPPORTED = "is a part of PostgREST's language that is not spoken here"


def plain_listing(resource: Resource) -> Listing:
    """The first page as the template orders it."""
    order = [Sort(column.removeprefix("-"), resource.columns[column.removeprefix("-")], column.startswith("-"))
             for column in resource.order]  # fmt: skip
    shape = Shape(_total(order, resource), version=resource.version)
    return Listing(shape._replace(cursors=shape.uniform), resource.default_limit)


def parse_query(query: bytes, resource: Resource, *, whole: bool = False) -> Listing:
    """What the query string asks of `resource`; raises `InvalidInput` with an entry per parameter that is refused.

    `whole`: of all rows, as an export has them, so that a limit holds as it is given, and there is none by itself.
    """
    return _Parser(resource, whole).parse(parameters(query))


def one_way(order: Sequence[Sort]) -> str:
    """The order like this one that pages by cursor can have."""
    return "order=" + ",".join(str(sort._replace(descending=order[0].descending)) for sort in order)


def _total(order: Sequence[Sort], resource: Resource) -> tuple[Sort, ...]:
    """With the key behind it, so that pages neither skip nor repeat."""
    named = {sort.column for sort in order}
    key = (Sort(column, resource.columns[column], order[-1].descending) for column in resource.key)
    return (*order, *(sort for sort in key if sort.column not in named))


def parameters(query: bytes) -> list[tuple[str, str]]:
    """The names and values in their order; raises `InvalidInput`."""
    try:
        return parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise InvalidInput("The query string is not UTF-8.") from None
    except ValueError:
        raise InvalidInput(f"The query string has more than {MAX_PARAMETERS} parameters.") from None


class _Parser:
    def __init__(self, resource: Resource, whole: bool) -> None:
        self.resource = resource
        self.whole = whole
        self.listing = plain_listing(resource)
        if whole:
            self.listing = self.listing._replace(limit=NO_LIMIT)
        self.once: dict[str, Callable[[str], None]] = {
            "select": self.select,
            "order": self.order,
            "limit": self.limit,
            "offset": self.offset,
            "cursor": self.cursor,
        }

    def parse(self, parameters: list[tuple[str, str]]) -> Listing:
        filters, errors, seen = [], [], set[str]()
        for name, text in parameters:
            try:
                if name in self.once:
                    if name in seen:
                        raise RefusedParameter("is given more than once")
                    seen.add(name)
                    self.once[name](text)
                elif name in self.resource.filters:
                    filters.append(parse_filter(name, text, self.resource))
                elif name in RESERVED_PARAMETERS:
                    raise RefusedParameter(_UNSUPPORTED, [*self.once, *self.resource.filters])
                else:
                    raise RefusedParameter("is unknown here", [*self.once, *self.resource.filters])
            except RefusedParameter as refused:
                errors.append(_entry(name, refused))
        try:
            self._page(seen)
        except RefusedParameter as refused:
            errors.append(_entry("cursor", refused))
        if errors:
            raise _refusal(errors)
        # In an order of their own, so that the same conditions make the same statement.
        filters.sort(key=lambda each: tuple(map(str, each[0])))
        shape = self.listing.shape._replace(conditions=tuple(condition for condition, _ in filters))
        return self.listing._replace(shape=shape, values=tuple(value for _, value in filters if value is not None))

    def select(self, text: str) -> None:
        keys = tuple(dict.fromkeys(key.strip() for key in text.split(",")))
        if "*" in keys:
            keys = ("*",)
        elif len(keys) > MAX_KEYS or not all(map(_KEY.fullmatch, keys)):
            raise RefusedParameter(f"takes * or up to {MAX_KEYS} names of fields, as in id,name; no aliases, no paths")
        if keys != ("*",):
            self.listing = self.listing._replace(shape=self.listing.shape._replace(picked=True), keys=keys)

    def order(self, text: str) -> None:
        sorts = [self._sort(term) for term in text.split(",")]
        if len({sort.column for sort in sorts}) < len(sorts):
            raise RefusedParameter("names a column more than once")
        self.listing = self.listing._replace(shape=self.listing.shape._replace(order=_total(sorts, self.resource)))

    def _sort(self, term: str) -> Sort:
        column, *words = term.strip().split(".")
        allowed = dict.fromkeys((*self.resource.sorts, *self.resource.key))
        if column not in allowed:
            raise RefusedParameter("names a column that is no sort", list(allowed))
        descending = bool(words) and _DIRECTIONS.get(words[0], False)
        nulls = words[1:] if words and words[0] in _DIRECTIONS else words
        if len(nulls) > 1 or not set(nulls) <= _NULLS.keys():
            raise RefusedParameter("is not of the form column.direction.nulls", [*_DIRECTIONS, *_NULLS])
        return Sort(column, self.resource.columns[column], descending, _NULLS[nulls[0]] if nulls else None)

    def limit(self, text: str) -> None:
        highest = NO_LIMIT if self.whole else self.resource.max_limit
        self.listing = self.listing._replace(limit=min(_number(text, 2**63), highest))

    def offset(self, text: str) -> None:
        self.listing = self.listing._replace(offset=_number(text, MAX_OFFSET))

    def cursor(self, text: str) -> None:
        if _CURSOR.fullmatch(text) is None:
            raise RefusedParameter("is no cursor of this list")
        self.listing = self.listing._replace(shape=self.listing.shape._replace(way=WAYS[text[0]]), place=text[1:])

    def _page(self, seen: set[str]) -> None:
        """A page that can be gone on from: not one that is counted off, or without rows, or of an order with turns."""
        shape = self.listing.shape
        if "cursor" in seen:
            if "offset" in seen:
                raise RefusedParameter("goes on from a place; an offset beside it has no meaning")
            if self.listing.limit == 0:
                raise RefusedParameter("needs a limit of at least 1")
            if not shape.uniform:
                raise RefusedParameter(f"needs an order of one direction, such as {one_way(shape.order)}")
        cursors = shape.uniform and "offset" not in seen and self.listing.limit > 0
        self.listing = self.listing._replace(shape=shape._replace(cursors=cursors))


def _number(text: str, high: int) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > high:
        raise RefusedParameter(f"must be a whole number from 0 to {min(high, 9_999_999_999)}")
    return int(text)


def _entry(name: str, refused: RefusedParameter) -> dict[str, Any]:
    entry: dict[str, Any] = {"parameter": name[:63], "message": refused.message}
    return entry | {"allowed": refused.allowed} if refused.allowed else entry


def _refusal(errors: list[dict[str, Any]]) -> InvalidInput:
    first = errors[0]
    hint = f"Allowed here: {', '.join(first['allowed'])}." if "allowed" in first else None
    return InvalidInput(f"The parameter {first['parameter']} {first['message']}.", hint=hint, errors=errors)
