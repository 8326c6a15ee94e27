"""How what stands in a home differs from what its version would build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from control_plane.migrator.expressions import same
from control_plane.migrator.structure import Aspects, Key

_LONGEST = 80  # characters of a value that is told in a sentence
_CONTAINERS = ("table", "view", "materialized-view", "foreign-table")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be.

    `missing` and `extra` are said of the object, and not again of its parts. `different` is said of one `aspect`, with
    the values `expected` and `found`; the names of the home stand there as <home>, <login> and <tenant>.
    """

    kind: str
    object: str
    problem: Literal["missing", "extra", "different"]
    aspect: str | None
    expected: Any
    found: Any
    key: Key

    def document(self) -> dict[str, Any]:
        """For JSON."""
        names = ("kind", "object", "problem", "aspect", "expected", "found")
        return {name: getattr(self, name) for name in names}

    @property
    def harmless(self) -> bool:
        """Whether nobody can notice who names the columns that he wants: a column that was put back is the last one."""
        return self.aspect == "order of columns"

    def __str__(self) -> str:
        what = str(self.key)
        if self.problem == "missing":
            return f"{what} is missing"
        if self.problem == "extra":
            return f"{what} is not in the template"
        found, expected = _shown(self.found), _shown(self.expected)
        if len(found) + len(expected) > _LONGEST or "\n" in found + expected:
            return f"{what}: {self.aspect} is not as in the template"
        return f"{what}: {self.aspect} is {found}, not {expected}"


def find_differences(expected: Mapping[Key, Aspects], found: Mapping[Key, Aspects]) -> list[Difference]:
    """Both with placeholders for what differs by home. In the order of objects; empty for equal homes."""
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    differences: list[Difference] = []
    for key in sorted(expected.keys() | found.keys()):
        if key in missing:
            if not any(container in missing for container in containers(key)):
                differences.append(difference(key, "missing"))
        elif key in extra:
            if not any(container in extra for container in containers(key)):
                differences.append(difference(key, "extra"))
        else:
            differences += [
                difference(key, "different", aspect, *values)
                for aspect, values in changes(expected[key], found[key]).items()
            ]
    return differences


def changes(expected: Aspects, found: Aspects) -> dict[str, tuple[Any, Any]]:
    """Aspect → expected and found, where they are not equal; grants by who has them."""
    one, other = dict(_flat(expected)), dict(_flat(found))
    one["order of columns"], other["order of columns"] = _orders(expected, found)
    return {
        aspect: (one.get(aspect), other.get(aspect))
        for aspect in (*one, *(each for each in other if each not in one))
        if not _equal(aspect, one, other)
    }


def containers(key: Key) -> Iterator[Key]:
    """What an object cannot be without."""
    if key.relation:
        yield from (Key(kind, key.schema, "", key.relation) for kind in _CONTAINERS)
    if key.kind != "schema":
        yield Key("schema", key.schema, "", "")


def difference(
    key: Key,
    problem: Literal["missing", "extra", "different"],
    aspect: str | None = None,
    expected: Any = None,
    found: Any = None,
) -> Difference:
    """What is told of an object."""
    return Difference(key.kind, key.object, problem, aspect, expected, found, key)


def _flat(aspects: Aspects) -> Iterator[tuple[str, Any]]:
    for name, value in aspects.items():
        if name == "grants":
            yield from ((f"grants to {grantee}", privileges) for grantee, privileges in value.items())
        elif name != "columns" or "persistence" not in aspects:  # those of tables are objects of their own
            yield name, value


def _equal(aspect: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    expected, found = one.get(aspect), other.get(aspect)
    if expected == found or not isinstance(expected, str) or not isinstance(found, str):
        return bool(expected == found)
    # The text of other languages is kept as it was written.
    return (aspect != "body" or one.get("language") == "sql") and same(expected, found)


def _orders(expected: Aspects, found: Aspects) -> tuple[list[str] | None, list[str] | None]:
    """The columns of a table that are in both, in either order."""
    if "persistence" not in expected or "persistence" not in found:
        return None, None
    one, other = expected.get("columns", []), found.get("columns", [])
    return [each for each in one if each in other], [each for each in other if each in one]


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return str(value)
