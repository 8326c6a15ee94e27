"""What a repair leaves to people, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from control_plane.migrator.altering import added_labels, is_definition
from control_plane.migrator.ddl import Names
from control_plane.migrator.differences import changes
from control_plane.migrator.structure import Aspects, Key

Needs = Mapping[Key, frozenset[Key]]
Place = tuple[Key, str | None]  # an object as a whole, or one aspect of it

_BY_HAND = {"materialized-view", "foreign-table"}
_REMADE = {"view", "function", "constraint", "index", "statistics", "trigger", "rule", "policy"}  # hold no rows
_REWRITES, _MOVES = "all rows would be written anew", "rows would have to move"
_OF_PARENT, _NUMBER, _STRICTER = (
    "it comes with the parent's",
    "the next number is not known",
    "it is checked, which is more than the template asks for",
)
_FIXED = {  # what is not changed in place
    ("column", "type"): f"{_REWRITES}, and values may not fit",
    ("column", "collation"): "all indexes on it would be built anew",
    ("column", "generated"): _REWRITES,
    ("column", "identity"): _NUMBER,
    ("table", "persistence"): _REWRITES,
    ("table", "partitioned by"): _MOVES,
    ("table", "partition"): _MOVES,
    ("table", "parents"): _MOVES,
    ("table", "order of columns"): "a column cannot be moved; who names the columns that he wants sees no difference",
    ("constraint", "off"): "only a superuser can: ALTER TABLE … ENABLE TRIGGER ALL",
    ("constraint", "inherited"): _OF_PARENT,
    ("index", "inherited"): _OF_PARENT,
    ("trigger", "inherited"): _OF_PARENT,
    ("sequence", "identity"): _NUMBER,
    ("rule", "off"): "the template makes no rule that is off",
}


@dataclass(slots=True)
class Leaving:
    """`left` says why something is left; `dropped` is what has to be made anew, with all that needs it.

    `occupied` are the tables without a column that takes no NULL, and with rows.
    """

    names: Names
    expected: Mapping[Key, Aspects]
    present: Mapping[Key, Aspects]
    needs: Needs  # of what is expected
    present_needs: Needs
    occupied: Set[Key]
    missing: Set[Key] = frozenset()
    extra: Set[Key] = frozenset()
    changed: dict[Key, dict[str, tuple[Any, Any]]] = field(default_factory=dict)
    left: dict[Place, str] = field(default_factory=dict)
    dropped: set[Key] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.missing = self.expected.keys() - self.present.keys()
        self.extra = self.present.keys() - self.expected.keys()
        for key in sorted(self.expected.keys() & self.present.keys()):
            if changed := changes(self.expected[key], self.present[key]):
                self.changed[key] = changed
        for key in self.extra:
            self.left[key, None] = "nothing that may hold data is dropped"
        self._leave_with_dependents()
        self._choose_dropped()

    def todo(self, key: Key) -> dict[str, tuple[Any, Any]]:
        """What is to be changed of an object that is there."""
        changed = self.changed.get(key, {})
        return {aspect: values for aspect, values in changed.items() if (key, aspect) not in self.left}

    def comes_along(self, key: Key) -> bool:
        """Whether another statement makes it: of its table, of its column, or of what its table is a partition of."""
        if self.expected[key].get("inherited"):
            return True
        if key.kind == "column":
            table = Key("table", key.schema, "", key.relation)
            return table in self.missing or "partition" in self.expected[table]
        if key.kind == "sequence" and self.expected[key]["identity"]:
            table, column = self.expected[key]["owned by"]
            return Key("column", key.schema, table, column) in self.missing
        return False

    def _leave_with_dependents(self) -> None:
        tainted = set()
        for (key, aspect), reason in self._reasons():
            self.left[key, aspect] = reason
            if aspect is None or (key.kind in ("column", "type", *_BY_HAND) and is_definition(aspect)):
                tainted.add(key)
        for key, cause in dependents(tainted, self.needs).items():
            aspects = [None] if key in self.missing else filter(is_definition, self.changed.get(key, ()))
            for aspect in aspects:
                self.left.setdefault((key, aspect), f"it needs {cause}, which is left")

    def _reasons(self) -> Iterator[tuple[Place, str]]:
        for key in sorted(self.missing):
            if reason := self._why_not_made(key):
                yield (key, None), reason
        for key, changed in self.changed.items():
            for aspect, values in changed.items():
                if reason := self._why_not_changed(key, aspect, *values):
                    yield (key, aspect), reason

    def _why_not_made(self, key: Key) -> str | None:
        aspects = self.expected[key]
        if key.kind in _BY_HAND:
            return "it is made by hand"
        if (
            key.kind == "column"
            and Key("table", key.schema, "", key.relation) in self.occupied
            and takes_no_null(aspects)
        ):
            return "it is NOT NULL without a default, and the table has rows"
        if key.kind == "sequence" and not self.comes_along(key):
            owner = aspects.get("owned by")
            if owner is None or Key("table", key.schema, "", owner[0]) not in self.missing:
                return "its last value is not known"
        return None

    def _why_not_changed(self, key: Key, aspect: str, expected: Any, found: Any) -> str | None:
        if reason := _FIXED.get((key.kind, aspect)):
            return reason
        if key.kind in _BY_HAND and is_definition(aspect):
            return "it is made by hand"
        if (key.kind, aspect) == ("constraint", "validated"):
            return None if expected else _STRICTER
        if (key.kind, aspect) == ("column", "unchecked"):
            return _STRICTER if expected else None
        if key.kind == "type" and (
            is_definition(aspect)
            or (aspect == "labels" and added_labels(self.names, key, expected or [], found or []) is None)
        ):
            return "values of it may be in use"
        return None

    def _choose_dropped(self) -> None:
        for key in self.changed:
            aspects = self.todo(key)
            if not self._is_remade(key, aspects.keys()):
                continue
            whole = {key, *dependents({key}, self.present_needs)}
            in_the_way = sorted(
                each for each in whole if each.kind not in _REMADE or each in self.extra or self._is_left(each)
            )
            if in_the_way:
                self.left |= {(key, aspect): f"{in_the_way[0]} needs it" for aspect in aspects if is_definition(aspect)}
            else:
                self.dropped |= whole

    def _is_remade(self, key: Key, aspects: Set[str]) -> bool:
        """Whether what is to be changed of an object cannot be changed in place."""
        definition = set(filter(is_definition, aspects))
        if key.kind == "view":
            wanted, present = self.expected[key]["columns"], self.present[key]["columns"]
            return "columns" in definition and wanted[: len(present)] != present
        if key.kind == "function":
            return bool(definition & {"form", "arguments", "result"})
        if key.kind == "constraint":
            return "definition" in definition
        return key.kind in _REMADE and bool(definition)

    def _is_left(self, key: Key) -> bool:
        return any((key, aspect) in self.left for aspect in filter(is_definition, self.changed.get(key, ())))


def takes_no_null(aspects: Aspects) -> bool:
    """Whether a column cannot be added to rows."""
    return bool(aspects["not null"]) and not aspects.keys() & {"default", "generated", "identity"}


def dependents(roots: Set[Key], needs: Needs) -> dict[Key, Key]:
    """All that cannot be without one of `roots`, directly or not, each with what it needs of them."""
    found: dict[Key, Key] = {}
    waiting = sorted(roots)
    while waiting:
        root = waiting.pop()
        for key, needed in needs.items():
            if root in needed and key not in found and key not in roots:
                found[key] = root
                waiting.append(key)
    return found
