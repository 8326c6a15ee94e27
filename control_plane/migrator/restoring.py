"""The statements that bring a home back to what its version would build, in an order in which they can run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from uuid import UUID

from control_plane.migrator import ddl
from control_plane.migrator.altering import altered
from control_plane.migrator.ddl import Names
from control_plane.migrator.differences import Difference, containers, difference, find_differences
from control_plane.migrator.leaving import Leaving, Needs, takes_no_null
from control_plane.migrator.references import Reference
from control_plane.migrator.structure import Aspects, Key, Structure

_OWNER = "cp_owner"
# In which order things are made where nothing else decides.
_ORDER = (
    *("schema", "type", "sequence", "table", "column", "function", "view", "constraint", "index", "statistics"),
    *("trigger", "rule", "policy"),
)
_PUT = """INSERT INTO tenancy.function_tables (home_id, table_name, private) VALUES ('{home}', {table}, {private})
ON CONFLICT (home_id, table_name) DO UPDATE SET private = excluded.private"""
_TAKE = "DELETE FROM tenancy.function_tables WHERE home_id = '{home}' AND table_name = {table}"


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

    differences: tuple[Difference, ...] = ()
    left: tuple[Left, ...] = ()
    before: tuple[str, ...] = ()
    as_owner: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def statements(self) -> tuple[str, ...]:
        """All in their order; empty where nothing can be done."""
        if not self.as_owner:
            return (*self.before, *self.after)
        return (*self.before, f"SET LOCAL ROLE {_OWNER}", *self.as_owner, "SET LOCAL ROLE NONE", *self.after)

    @property
    def repaired(self) -> list[Difference]:
        left = {(each.difference.key, each.difference.aspect) for each in self.left}
        return [each for each in self.differences if (each.key, each.aspect) not in left]

    def unexpected(self, remaining: Iterable[Difference]) -> list[Difference]:
        """Those of `remaining` that this did not mean to leave. A column that is put back becomes the last one."""
        left = {(each.difference.key, each.difference.aspect) for each in self.left}
        return [each for each in remaining if not each.harmless and (each.key, each.aspect) not in left]


def tables_to_look_into(expected: Mapping[Key, Aspects], found: Mapping[Key, Aspects]) -> set[Key]:
    """Those of which `restore` must be told whether they hold rows."""
    return {
        table
        for key in expected.keys() - found.keys()
        if key.kind == "column" and takes_no_null(expected[key])
        if (table := Key("table", key.schema, "", key.relation)) in found
    }


def restore(
    home_id: UUID, reference: Reference, found: Structure, found_needs: Needs, occupied: Set[Key]
) -> Restoration:
    """`occupied` are the tables of `tables_to_look_into` that hold rows."""
    return _Restorer(home_id, reference, found, found_needs, occupied).plan()


class _Restorer:
    def __init__(
        self, home_id: UUID, reference: Reference, found: Structure, found_needs: Needs, occupied: Set[Key]
    ) -> None:
        self.home_id = home_id
        self.names = Names(found.schema_name, found.logins)
        self.needs, self.found_needs = reference.needs, found_needs
        self.expected, self.present = reference.structure.plain(), found.plain()
        self.wanted = reference.structure.moved(found.schema_name, found.tenant_id)
        own = reference.structure.schema_name
        self.routines = {key: text.replace(own, found.schema_name) for key, text in reference.routines.items()}
        self.leaving = Leaving(self.names, self.expected, self.present, self.needs, found_needs, occupied)

    def plan(self) -> Restoration:
        leaving, differences = self.leaving, find_differences(self.expected, self.present)
        made = {key for key in leaving.missing if (key, None) not in leaving.left} | leaving.dropped
        made = {key for key in made if not leaving.comes_along(key)}
        work = {key: self._created(key) for key in made}
        for key in leaving.changed.keys() - leaving.dropped:
            if statements := altered(self.names, key, leaving.todo(key), self.wanted[key], self.routines.get(key)):
                work[key] = statements
        drops = [ddl.dropped(self.names, key) for key in reversed(_in_order(leaving.dropped, self.found_needs))]
        changes = [each for key in _in_order(work, self._needs_of(work)) for each in work[key]]
        before, handed_over = self._owners({*work, *leaving.dropped}, made)
        return Restoration(
            differences=tuple(differences),
            left=tuple(self._left(differences)),
            before=tuple(before),
            as_owner=(*drops, *changes, *self._owned_sequences(made)),
            after=(*handed_over, *self._grants(made), *self._writers(made)),
        )

    def _needs_of(self, work: Iterable[Key]) -> Needs:
        """A partition is made when all is there that it takes from its parent."""
        needs = dict(self.needs)
        for key in work:
            if key.kind == "table" and "partition" in self.expected[key]:
                parent = self.expected[key]["parents"][0].rpartition(".")[2].strip('"')
                own = {each for each in work if each.schema == key.schema and parent in (each.relation, each.name)}
                needs[key] = needs.get(key, frozenset()) | own - {key}
        return needs

    def _left(self, differences: Iterable[Difference]) -> Iterator[Left]:
        """Of what is made anew as a whole, the parts that are not."""
        left = dict(self.leaving.left)
        for each in differences:
            if (reason := left.pop((each.key, each.aspect), None)) is not None:
                yield Left(each, reason)
        for (key, _), reason in left.items():
            if key in self.leaving.missing:
                yield Left(difference(key, "missing"), reason)

    def _created(self, key: Key) -> list[str]:
        return ddl.created(self.names, key, self.wanted[key], self.wanted, self.routines.get(key))

    def _owned_sequences(self, made: Set[Key]) -> Iterator[str]:
        """Once the column is there."""
        for key in sorted(made):
            if key.kind == "sequence" and "owned by" in self.wanted[key]:
                yield ddl.owned_sequence(self.names, key, self.wanted[key])

    def _owners(self, touched: Set[Key], made: Set[Key]) -> tuple[list[str], list[str]]:
        """What gives cp_owner the objects that it shall change, and what hands them over afterwards."""
        whole = touched | {each for key in touched for each in containers(key)}
        whole |= {key for key in self.leaving.changed if "owner" in self.leaving.todo(key)}
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
        for key in _in_order(made | self.leaving.changed.keys(), {}):
            if key in made:
                for grantee, privileges in self.expected[key].get("grants", {}).items():
                    if grantee != self.expected[key].get("owner"):
                        yield from ddl.granted(self.names, key, grantee, privileges)
                continue
            for aspect, (wanted, present) in self.leaving.todo(key).items():
                if aspect.startswith("grants to "):
                    grantee = aspect.removeprefix("grants to ")
                    yield from ddl.granted(self.names, key, grantee, wanted or (), present or ())

    def _writers(self, made: Set[Key]) -> Iterator[str]:
        """Who writes a table is what `tenancy` knows of it."""
        for key in sorted(made | self.leaving.changed.keys()):
            if key.kind == "table" and (key in made or "written by" in self.leaving.todo(key)):
                wanted, table = self.expected[key].get("written by"), ddl.literal(key.name)
                if wanted is not None:
                    private = str(wanted == "functions alone").lower()
                    yield _PUT.format(home=self.home_id, table=table, private=private)
                elif key not in made:
                    yield _TAKE.format(home=self.home_id, table=table)


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
