"""Requests to the routes of an application, with the values of one tenant or with values that nobody has."""

from __future__ import annotations

import random
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx

from control_plane.testing.routes import Route

SHORTEST_SECRET = 12  # characters; what is shorter, such as a counter's number, turns up by chance

Values = Mapping[str, list[str]]


@dataclass(frozen=True)
class Filled:
    """What a tenant was filled with: `marker` stands in its rows, `values` are those of parameters, by name."""

    marker: str
    values: dict[str, list[str]]

    def foreign(self, other: Filled) -> dict[str, str]:
        """The values that `other`, another tenant's, does not have as well, each with the name of its parameter."""
        return {
            value: name
            for name, values in self.values.items()
            for value in values
            if value not in other.values.get(name, ())
        }

    def secrets(self, other: Filled) -> dict[str, str]:
        """What the tenant of `other` may not read, each with what it is."""
        named = {value: f"its {name}" for value, name in self.foreign(other).items() if len(value) >= SHORTEST_SECRET}
        return {**named, self.marker: "the marker"}


@dataclass(frozen=True)
class Question:
    """A request to be made. `values` are those that it names, by parameter."""

    route: Route
    values: dict[str, str]
    body: Any = None

    @property
    def url(self) -> str:
        quoted = {name: quote(self.values[name], safe="") for name in self.route.parameters}
        query = {name: value for name, value in self.values.items() if name not in self.route.parameters}
        return self.route.template.format(**quoted) + (f"?{httpx.QueryParams(query)}" if query else "")

    @property
    def words(self) -> str:
        """All that the request says, which an answer may say again."""
        return f"{self.url} {' '.join(self.values.values())} {self.body}"

    def __str__(self) -> str:
        return f"{self.route.method} {self.url}"

    def ask(self, client: httpx.Client) -> httpx.Response:
        return client.request(self.route.method, self.url, json=self.body)


@dataclass
class Missing(Exception):
    """`names` are parameters of `route` for which there is no value."""

    route: Route
    names: list[str] = field(default_factory=list)


def filled(marker: str, returned: Mapping[str, Any]) -> Filled:
    """What a fill function returned, each value as text in a list."""
    return Filled(
        marker,
        {
            name: [str(each) for each in (value if isinstance(value, list | tuple | set) else [value])]
            for name, value in returned.items()
        },
    )


def questions(route: Route, values: Values, body: Any = None) -> list[Question]:
    """Requests to `route` with `values`: with the query parameters that it insists on, and with all that have a value.

    Where a name has several values, since it means different things in different paths, each is tried. Raises
    `Missing`.
    """
    needed = (*route.parameters, *route.needed)
    if missing := [name for name in needed if not values.get(name)]:
        raise Missing(route, missing)
    optional = [name for name in route.query if name not in needed and values.get(name)]
    found = [Question(route, each, body) for each in _rows(needed, values)]
    if optional:
        found += [Question(route, each, body) for each in _rows((*needed, *optional), values)]
    return found


def unknown(question: Question, foreign: Collection[str]) -> Question:
    """The same, with values that nobody has in the place of those in `foreign`, and of their kind."""
    values = {name: _made_up(value) if value in foreign else value for name, value in question.values.items()}
    return Question(question.route, values, question.body)


def _rows(names: tuple[str, ...], values: Values) -> Iterator[dict[str, str]]:
    for number in range(max((len(values[name]) for name in names), default=1)):
        yield {name: values[name][number % len(values[name])] for name in names}


def _made_up(value: str) -> str:
    try:
        UUID(value)
    except ValueError:
        if value.isascii() and value.isdigit():
            return str(random.randint(1_500_000_000, 2_000_000_000))  # noqa: S311 - fits an integer, and is no secret
        return f"x{secrets.token_hex(8)}"
    return str(uuid4())
