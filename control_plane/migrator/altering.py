"""The statements that change single objects of a home in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from control_plane.migrator.ddl import Names, fires_as, literal, owned_sequence, replaced_view, row_security
from control_plane.migrator.ddl import sequence_options as options_of
from control_plane.migrator.structure import Aspects, Key
from control_plane.templates.script import quote

Changes = Mapping[str, tuple[Any, Any]]  # aspect → expected and found


def altered(names: Names, key: Key, todo: Changes, wanted: Aspects, routine: str | None) -> list[str]:
    """What brings an object from what was found to `wanted`, as cp_owner; owners and grants are not told of here.

    Empty for what cannot be changed in place, or where nothing of `todo` concerns the object itself.
    """
    if key.kind == "function":
        return [routine.rstrip()] if routine is not None and any(map(is_definition, todo)) else []
    alter = _ALTERED.get(key.kind)
    return list(alter(names, key, todo, wanted)) if alter is not None else []


def is_definition(aspect: str) -> bool:
    """Whether objects that need the one with this aspect may notice a change of it."""
    return aspect not in _BESIDE and not aspect.startswith("grants to ")


def added_labels(names: Names, key: Key, expected: Sequence[str], found: Sequence[str]) -> list[str] | None:
    """The statements that bring an enum from `found` to `expected`; None where one would have to go or move."""
    if [label for label in expected if label in found] != list(found):
        return None
    statements = []
    for number, label in enumerate(expected):
        if label not in found:
            first = f" BEFORE {literal(found[0])}" if found else ""
            place = f" AFTER {literal(expected[number - 1])}" if number else first
            statements.append(f"ALTER TYPE {names.of(key)} ADD VALUE {literal(label)}{place}")
    return statements


_BESIDE = {"owner", "options", "fires", "row security", "forced row security", "written by", "labels", "unchecked"}


def _table(names: Names, key: Key, todo: Changes, wanted: Aspects) -> Iterator[str]:
    for aspect in ("row security", "forced row security"):
        if aspect in todo:
            yield row_security(names, key, aspect, wanted[aspect])
    yield from _options(names, key, todo)


def _column(names: Names, key: Key, todo: Changes, wanted: Aspects) -> Iterator[str]:
    alter = f"ALTER TABLE {names.table(key)} ALTER COLUMN {quote(key.name)}"
    if "default" in todo:
        yield f"{alter} SET DEFAULT {wanted['default']}" if "default" in wanted else f"{alter} DROP DEFAULT"
    if todo.keys() & {"not null", "unchecked"}:
        yield f"{alter} SET NOT NULL" if wanted["not null"] else f"{alter} DROP NOT NULL"


def _view(names: Names, key: Key, todo: Changes, wanted: Aspects) -> Iterator[str]:
    if any(map(is_definition, todo)):
        yield replaced_view(names, key, wanted)  # with the options
    else:
        yield from _options(names, key, todo)


def _constraint(names: Names, key: Key, todo: Changes, wanted: Aspects) -> Iterator[str]:
    if "validated" in todo:
        yield f"ALTER TABLE {names.table(key)} VALIDATE CONSTRAINT {quote(key.name)}"


def _trigger(names: Names, key: Key, todo: Changes, wanted: Aspects) -> Iterator[str]:
    if "fires" in todo:
        yield fires_as(names, key, wanted["fires"])


def _type(names: Names, key: Key, todo: Changes, wanted: Aspects) -> Iterator[str]:
    if "labels" in todo:
        yield from added_labels(names, key, *todo["labels"]) or ()


def _sequence(names: Names, key: Key, todo: Changes, wanted: Aspects) -> Iterator[str]:
    if any(is_definition(aspect) and aspect != "owned by" for aspect in todo):
        yield f"ALTER SEQUENCE {names.of(key)} AS {wanted['type']} {options_of(wanted)}"
    if "owned by" in todo:
        yield owned_sequence(names, key, wanted)


def _options(names: Names, key: Key, todo: Changes) -> Iterator[str]:
    if "options" in todo:
        expected, found = todo["options"]
        alter = f"ALTER {key.kind.upper()} {names.of(key)}"
        if gone := sorted({option.partition("=")[0] for option in set(found or ()) - set(expected or ())}):
            yield f"{alter} RESET ({', '.join(gone)})"
        if expected:
            yield f"{alter} SET ({', '.join(expected)})"


_ALTERED: dict[str, Callable[[Names, Key, Changes, Aspects], Iterator[str]]] = {
    "table": _table,
    "column": _column,
    "view": _view,
    "constraint": _constraint,
    "trigger": _trigger,
    "type": _type,
    "sequence": _sequence,
}
