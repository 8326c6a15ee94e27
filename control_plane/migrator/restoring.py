"""Decides which statements bring a home back to what its version would build, and what is left to people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any
from uuid import UUID

from control_plane.migrator import ddl
from control_plane.migrator.ddl import Names
from control_plane.migrator.differences import Difference, changes, containers, find_differences
from control_plane.migrator.references import Reference
from control_plane.migrator.structure import Aspects, Key, Structure
from control_plane.templates.script import quote

Needs = Mapping[Key, frozenset[Key]]

_OWNER = "cp_owner"
# In which order things are made where nothing else decides.
_ORDER = (
    *("schema", "type", "sequence", "table", "column", "function", "view", "constraint", "index", "statistics"),
    *("trigger", "rule", "policy"),
)
_BY_HAND = {"materialized-view", "foreign-table"}
_REMADE = {"view", "function", "constraint", "index", "statistics", "trigger", "rule", "policy"}  # hold no rows
_FIXED = {  # what is not changed in place: kind and aspect → why
    ("column", "type"): "all rows would be written anew, and values may not fit",
    ("column", "collation"): "all indexes on it would be built anew",
    ("column", "generated"): "all rows would be written anew",
    ("column", "identity"): "the next number is not known",
    ("table", "persistence"): "all rows would be written anew",
    ("table", "partitioned by"): "rows would have to move",
    ("table", "partition"): "rows would have to move",
    ("table", "parents"): "rows would have to move",
    ("table", "order of columns"): "a column cannot be moved; whoever names the columns that he wants sees no difference",
    ("constraint", "off"): "only a superuser can: ALTER TABLE … ENABLE TRIGGER ALL",
    ("constraint", "inherited"): "it comes with the parent's",
    ("index", "inherited"): "it comes with the parent's",
    ("trigger", "inherited"): "it comes with the parent's",
    ("sequence", "identity"): "the next number is not known",
    ("rule", "off"): "the template makes no rule that is off",
}
# What others that need the object do not notice.
_BESIDE = {"owner", "options", "fires", "row security", "forced row security", "written by", "labels", "unchecked"}


@dataclass(frozen=True, slots=True)
class Left:
    """A difference that is not repaired, and why."""

    difference: Difference
    reason: str

    def __str__(self) -> str:
        return f"{self.difference}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Restoration:
    """`before` and `after` run as the administrative role, `as_owner` as cp_owner between them."""

    differences: tuple[Difference, ...]
    left: tuple[Left, ...]
    before: tuple[str, ...]
    as_owner: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def statements(self) -> tuple[str, ...]:
        """All in their order; empty where nothing can be done."""
        if not self.as_owner:
            return (*self.before, *self.after)
        return (*self.before, f"SET LOCAL ROLE {_OWNER}", *self.as_owner, "SET LOCAL ROLE NONE", *self.after)

    def unexpected(self, remaining: Iterable[Difference]) -> list[Difference]:
        """Those of `remaining` that this did not mean to leave. A column that is put back becomes the last one."""
        left = {(each.difference.key, each.difference.aspect) for each in self.left}
        return [each for each in remaining if not each.harmless and (each.key, each.aspect) not in left]


def needed_facts(expected: Mapping[Key, Aspects], found: Mapping[Key, Aspects]) -> set[Key]:
    """The tables of which `restore` must be told whether they hold rows."""
    missing = (key for key in expected.keys() - found.keys() if key.kind == "column")
    return {
        table
        for key in missing
        if _needs_value(expected[key]) and (table := Key("table", key.schema, "", key.relation)) in found
    }


def restore(home_id: UUID, reference: Reference, found: Structure, found_needs: Needs, occupied: Set[Key]) -> Restoration:
    """`occupied` are the tables of `needed_facts` that hold rows."""
    return _Restorer(home_id, reference, found, found_needs, occupied).plan()


class _Restorer:
    def __init__(
        self, home_id: UUID, reference: Reference, found: Structure, found_needs: Needs, occupied: Set[Key]
    ) -> None:
        self.home_id = home_id
        self.names = Names(found.schema_name, found.logins)
        self.wanted = reference.structure.moved(found.schema_name, found.tenant_id)
        self.routines = {
            key: text.replace(reference.structure.schema_name, found.schema_name)
            for key, text in reference.routines.items()
        }
        self.needs = reference.needs
        self.found_needs = found_needs
        self.occupied = occupied
        self.expected, self.present = reference.structure.plain(), found.plain()
        self.differences = find_differences(self.expected, self.present)
        self.missing = self.expected.keys() - self.present.keys()
        self.extra = self.present.keys() - self.expected.keys()
        self.changed = {
            key: changed
            for key in sorted(self.expected.keys() & self.present.keys())
            if (changed := changes(self.expected[key], self.present[key]))
        }
        self.left: dict[tuple[Key, str | None], str] = {}
        self.dropped: set[Key] = set()

    def plan(self) -> Restoration:
        self._leave()
        self._choose_dropped()
        made = {key for key in self.missing if (key, None) not in self.left} | self.dropped
        made = {key for key in made if not self._comes_along(key)}
        work = {key: statements for key in made if (statements := self._created(key))}
        for key in self.changed.keys() - self.dropped:
            if statements := list(self._altered(key)):
                work[key] = statements
        drops = [ddl.dropped(self.names, key) for key in reversed(_in_order(self.dropped, self.found_needs))]
        as_owner = [*drops, *(each for key in _in_order(work, self.needs) for each in work[key]), *self._owned(made)]
        before, handed_over = self._taken_over({*work, *self.dropped}, made)
        after = [*handed_over, *self._grants(made), *self._records(made)]
        return Restoration(
            differences=tuple(self.differences),
            left=tuple(self._reported()),
            before=tuple(before),
            as_owner=tuple(as_owner),
            after=tuple(after),
        )

    # What is left.

    def _leave(self) -> None:
        for key in self.extra:
            self.left[key, None] = "nothing that may hold data is dropped"
        tainted: set[Key] = set()
        for key in sorted(self.missing):
            if reason := self._why_not_made(key):
                self.left[key, None] = reason
                tainted.add(key)
        for key, changed in self.changed.items():
            for aspect in changed:
                if reason := self._why_not_changed(key, aspect):
                    self.left[key, aspect] = reason
                    if key.kind in ("column", "type", *_BY_HAND) and not _is_beside(aspect):
                        tainted.add(key)
        for key, cause in _dependents(tainted, self.needs).items():
            reason = f"it needs {cause}, which is left"
            if key in self.missing:
                self.left.setdefault((key, None), reason)
            for aspect in self.changed.get(key, ()):
                if not _is_beside(aspect):
                    self.left.setdefault((key, aspect), reason)

    def _why_not_made(self, key: Key) -> str | None:
        aspects = self.expected[key]
        if key.kind in _BY_HAND:
            return "it is made by hand"
        if aspects.get("inherited"):
            return "it comes with the parent's"
        if key.kind == "column" and _needs_value(aspects):
            table = Key("table", key.schema, "", key.relation)
            return "it is NOT NULL without a default, and the table has rows" if table in self.occupied else None
        if key.kind == "sequence" and not self._comes_along(key):
            owner = aspects.get("owned by")
            if owner is None or Key("table", key.schema, "", owner[0]) not in self.missing:
                return "its last value is not known"
        return None

    def _why_not_changed(self, key: Key, aspect: str) -> str | None:
        expected, found = self.changed[key][aspect]
        if reason := _FIXED.get((key.kind, aspect)):
            return reason
        if key.kind in _BY_HAND and not aspect.startswith("grants to "):
            return "it is made by hand"
        if (key.kind, aspect) == ("constraint", "validated") and not expected:
            return "it is checked, which is more than the template asks for"
        if (key.kind, aspect) == ("column", "unchecked") and expected:
            return "it is checked, which is more than the template asks for"
        if (key.kind, aspect) == ("type", "labels"):
            addable = ddl.added_labels(self.names, key, expected or [], found or []) is not None
            return None if addable else "values of it may be in use"
        if key.kind == "type" and not _is_beside(aspect):
            return "values of it may be in use"
        return None

    def _choose_dropped(self) -> None:
        """What has to be dropped and made again, with all that needs it; a whole that cannot be is left."""
        for key, changed in self.changed.items():
            aspects = {aspect for aspect in changed if (key, aspect) not in self.left}
            if not self._is_remade(key, aspects):
                continue
            whole = {key, *_dependents({key}, self.found_needs)}
            in_the_way = sorted(
                each for each in whole if each.kind not in _REMADE or each in self.extra or self._is_left(each)
            )
            if in_the_way:
                for aspect in aspects:
                    self.left[key, aspect] = f"{in_the_way[0]} needs it"
            else:
                self.dropped |= whole

    def _is_remade(self, key: Key, changed: Set[str]) -> bool:
        definition = {aspect for aspect in changed if not _is_beside(aspect)}
        if key.kind == "view":
            wanted, present = self.expected[key]["columns"], self.present[key]["columns"]
            return "columns" in definition and wanted[: len(present)] != present
        if key.kind == "function":
            return bool(definition & {"form", "arguments", "result"})
        if key.kind == "constraint":
            return "definition" in definition
        return key.kind in _REMADE and bool(definition)

    def _is_left(self, key: Key) -> bool:
        return any((key, aspect) in self.left for aspect in self.changed.get(key, ()) if not _is_beside(aspect))

    def _reported(self) -> Iterator[Left]:
        for difference in self.differences:
            reason = self.left.get((difference.key, difference.aspect))
            if reason is not None:
                yield Left(difference, reason)

    # What is done.

    def _comes_along(self, key: Key) -> bool:
        """Whether another statement makes it: CREATE TABLE its columns, and a column the sequence of its numbers."""
        if key.kind == "column":
            return Key("table", key.schema, "", key.relation) in self.missing
        if key.kind == "sequence" and self.expected[key]["identity"]:
            table, column = self.expected[key]["owned by"]
            return Key("column", key.schema, table, column) in self.missing
        return False

    def _created(self, key: Key) -> list[str]:
        return ddl.created(self.names, key, self.wanted[key], self.wanted, self.routines.get(key))

    def _altered(self, key: Key) -> Iterator[str]:
        """What changes an object in place; owners and grants come afterwards."""
        names, wanted = self.names, self.wanted[key]
        todo = {aspect: values for aspect, values in self.changed[key].items() if (key, aspect) not in self.left}
        if key.kind == "table":
            for aspect in ("row security", "forced row security"):
                if aspect in todo:
                    yield ddl.row_security(names, key, aspect, wanted[aspect])
        if key.kind == "column":
            yield from filter(None, (ddl.changed_column(names, key, aspect, wanted.get(aspect)) for aspect in todo))
        if key.kind == "view" and todo.keys() & {"definition", "columns"}:
            yield ddl.replaced_view(names, key, wanted)
        elif key.kind in ("table", "view") and "options" in todo:
            yield from ddl.changed_options(names, key, *todo["options"])
        if key.kind == "function" and any(not _is_beside(aspect) for aspect in todo):
            yield self.routines[key].rstrip()
        if key.kind == "constraint" and "validated" in todo:
            yield f"ALTER TABLE {names.table(key)} VALIDATE CONSTRAINT {quote(key.name)}"
        if key.kind == "trigger" and "fires" in todo:
            yield ddl.fires_as(names, key, wanted["fires"])
        if key.kind == "type" and "labels" in todo:
            yield from ddl.added_labels(names, key, *todo["labels"]) or ()
        if key.kind == "sequence":
            if any(not _is_beside(aspect) and aspect != "owned by" for aspect in todo):
                yield from ddl.changed_sequence(names, key, wanted)
            if "owned by" in todo:
                yield ddl.owned_sequence(names, key, wanted)

    def _owned(self, made: Set[Key]) -> Iterator[str]:
        for key in sorted(made):
            if key.kind == "sequence" and "owned by" in self.wanted[key]:
                yield ddl.owned_sequence(self.names, key, self.wanted[key])

    def _taken_over(self, touched: Set[Key], made: Set[Key]) -> tuple[list[str], list[str]]:
        """Ownership: what gives cp_owner the objects that it shall change, and what hands them over afterwards."""
        whole = touched | {each for key in touched for each in containers(key)}
        whole |= {key for key, changed in self.changed.items() if "owner" in changed}
        before, after = [], []
        for key in _in_order(whole, {}):
            wanted = self.expected.get(key, {}).get("owner")
            present = self.present.get(key, {}).get("owner")
            if present not in (None, _OWNER):
                before += ddl.owned(self.names, key, _OWNER)
            if wanted not in (None, _OWNER) and (key in made or present is not None):
                after += ddl.owned(self.names, key, wanted)
        return before, after

    def _grants(self, made: Set[Key]) -> Iterator[str]:
        for key in _in_order(made | self.changed.keys(), {}):
            owner = self.expected[key].get("owner")
            if key in made:
                for grantee, privileges in self.expected[key].get("grants", {}).items():
                    if grantee != owner:
                        yield from ddl.granted(self.names, key, grantee, privileges)
                continue
            for aspect, (wanted, present) in self.changed[key].items():
                if aspect.startswith("grants to ") and (key, aspect) not in self.left:
                    grantee = aspect.removeprefix("grants to ")
                    yield from ddl.granted(self.names, key, grantee, wanted or (), present or ())

    def _records(self, made: Set[Key]) -> Iterator[str]:
        """Who writes a table is what `tenancy` knows of it."""
        for key in sorted(made | self.changed.keys()):
            if key.kind == "table" and (key in made or "written by" in self.changed[key]):
                wanted = self.expected[key].get("written by")
                name = "'" + key.name.replace("'", "''") + "'"
                if wanted is not None:
                    yield (
                        "INSERT INTO tenancy.function_tables (home_id, table_name, private) "
                        f"VALUES ('{self.home_id}', {name}, {str(wanted == 'functions alone').lower()}) "
                        "ON CONFLICT (home_id, table_name) DO UPDATE SET private = excluded.private"
                    )
                elif key not in made:
                    yield f"DELETE FROM tenancy.function_tables WHERE home_id = '{self.home_id}' AND table_name = {name}"


def _is_beside(aspect: str) -> bool:
    return aspect in _BESIDE or aspect.startswith("grants to ")


def _needs_value(aspects: Mapping[str, Any]) -> bool:
    return bool(aspects["not null"]) and not aspects.keys() & {"default", "generated", "identity"}


def _dependents(roots: Set[Key], needs: Needs) -> dict[Key, Key]:
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


def _in_order(keys: Iterable[Key], needs: Needs) -> list[Key]:
    """What is needed first; by kind and name where that does not matter."""
    chosen = set(keys)
    sorter: TopologicalSorter[Key] = TopologicalSorter()
    for key in chosen:
        sorter.add(key, *(chosen & {*needs.get(key, ()), *containers(key)}))
    try:
        sorter.prepare()
    except CycleError:
        return sorted(chosen, key=_rank)
    ordered: list[Key] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=_rank)
        ordered += ready
        sorter.done(*ready)
    return ordered


def _rank(key: Key) -> tuple[int, Key]:
    return (_ORDER.index(key.kind) if key.kind in _ORDER else len(_ORDER), key)
