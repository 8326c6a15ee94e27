"""Holds every home of a fleet against what its template would build today at the version that it says it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

import asyncpg

from control_plane.errors import ClusterUnavailable, ExtensionUnavailable
from control_plane.migrator.differences import Difference, find_differences
from control_plane.migrator.fingerprints import PASSING, BuiltHome, Fingerprint, built_homes, read_fingerprints
from control_plane.migrator.plan import PLAN_CONNECTIONS, Unreached
from control_plane.migrator.references import Blueprint, Reference, References, open_references
from control_plane.migrator.structure import read_structure, reading
from control_plane.migrator.verdicts import sqlstate_of
from control_plane.pools.databases import Databases
from control_plane.registry.fleet import Place, read_fleet
from control_plane.templates import Template

Progress = Callable[[int, int, int], None]  # homes that were looked at, databases, and of how many


@dataclass(frozen=True, slots=True)
class DifferingHome:
    """A home that is not what `reference` is."""

    home: BuiltHome
    differences: tuple[Difference, ...]
    reference: Reference

    @property
    def harmless(self) -> bool:
        return all(each.harmless for each in self.differences)


@dataclass(frozen=True, slots=True)
class Uncompared:
    """A home that could not be compared; `expected` where that is no fault: a later release has been there."""

    home: BuiltHome
    reason: str
    expected: bool = False


@dataclass(slots=True)
class Comparison:
    """`compared` counts the homes, equal ones among them."""

    compared: int = 0
    differing: list[DifferingHome] = field(default_factory=list)
    uncompared: list[Uncompared] = field(default_factory=list)
    unreached: list[Unreached] = field(default_factory=list)


async def compare(
    databases: Databases,
    templates: Mapping[str, Template],
    *,
    only: Mapping[UUID, Place] | None = None,
    leave_out: Set[str] = frozenset(),
    progress: Progress | None = None,
) -> Comparison:
    """Compare all homes, or those of `only` where they are, but on the clusters whose names `leave_out` has.

    One connection per database, and a few at a time. The homes that they are held against stand in a database that is
    dropped again; there is none where there is no home.
    """
    if only is None:
        async with databases.registry() as session:
            places = list((await read_fleet(session, None)).places)
    else:
        places = list(dict.fromkeys(only.values()))
    places = [place for place in places if place.cluster.name not in leave_out]
    counter = _Counter(len(places), progress)
    comparison = Comparison()
    for cluster in {place.cluster.id: place.cluster for place in places}.values():
        gate = asyncio.Semaphore(PLAN_CONNECTIONS)
        own = [place for place in places if place.cluster.id == cluster.id]
        answers = await asyncio.gather(*(_look(databases, gate, place, only, counter) for place in own))
        comparison.unreached += [answer for answer in answers if isinstance(answer, Unreached)]
        found = [each for answer in answers if not isinstance(answer, Unreached) for each in answer]
        async with open_references(databases, cluster) as references:
            await _judge(_Bench(databases, templates, references, comparison), found)
    comparison.differing.sort(key=lambda each: (each.home.place.cluster.name, each.home.label))
    return comparison


@dataclass(slots=True)
class _Counter:
    databases: int
    progress: Progress | None
    homes: int = 0
    done: int = 0

    def add(self, homes: int, databases: int = 0) -> None:
        self.homes += homes
        self.done += databases
        if self.progress is not None:
            self.progress(self.homes, self.done, self.databases)


@dataclass(frozen=True, slots=True)
class _Bench:
    databases: Databases
    templates: Mapping[str, Template]
    references: References
    comparison: Comparison


async def _look(
    databases: Databases, gate: asyncio.Semaphore, place: Place, only: Collection[UUID] | None, counter: _Counter
) -> list[Fingerprint] | Unreached:
    found: list[Fingerprint] = []
    async with gate:
        try:
            async with databases.admin(place.cluster, place.database, purpose="doctor") as connection:
                homes = await built_homes(connection, place, only)
                async for batch in read_fingerprints(connection, homes, databases.settings.lock_timeout):
                    found += batch
                    counter.add(len(batch))
        except ClusterUnavailable as error:
            return Unreached(place, f"{error.message} ({error.details})")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            return Unreached(place, str(error))
    counter.add(0, 1)
    return found


async def _judge(bench: _Bench, found: Iterable[Fingerprint]) -> None:
    alike: dict[Blueprint, dict[str | None, list[BuiltHome]]] = {}
    for each in found:
        home = each.home
        if each.problem is not None:
            bench.comparison.uncompared.append(Uncompared(home, each.problem))
        elif (reason := _unknown(bench.templates, home.template, each.version)) is not None:
            bench.comparison.uncompared.append(Uncompared(home, reason, expected=True))
        else:
            blueprint = Blueprint(home.template, each.version, home.isolation)
            alike.setdefault(blueprint, {}).setdefault(each.digest, []).append(home)
    for blueprint, by_digest in alike.items():
        try:
            template = bench.templates[blueprint.template]
            reference = await bench.references.get(template, blueprint.version, blueprint.isolation)
        except (asyncpg.PostgresError, ExtensionUnavailable, ClusterUnavailable) as error:
            reason = f"version {blueprint.version} of {blueprint.template} cannot be built: {error}"
            homes = [home for group in by_digest.values() for home in group]
            bench.comparison.uncompared += [Uncompared(home, reason) for home in homes]
            continue
        for digest, homes in by_digest.items():
            if digest == reference.digest:
                bench.comparison.compared += len(homes)
            else:
                await _explain(bench, blueprint.version, reference, homes)


def _unknown(templates: Mapping[str, Template], template: str, version: int) -> str | None:
    if template not in templates:
        return f"this release has no template {template}"
    if version > templates[template].latest:
        return f"this release has no version {version} of {template}"
    return None


async def _explain(bench: _Bench, version: int, reference: Reference, homes: Sequence[BuiltHome]) -> None:
    """Homes that are alike differ alike: one of them is looked at, the first that stands still."""
    for number, home in enumerate(homes):
        try:
            found: _Look | str | None = await _look_closely(bench.databases, version, reference, home)
        except ClusterUnavailable as error:
            found = f"{error.message} ({error.details})"
        except asyncpg.PostgresError as error:
            if sqlstate_of(error) not in PASSING:
                raise
            found = str(error)
        if isinstance(found, str):
            bench.comparison.uncompared.append(Uncompared(home, found))
        elif found is not None and found.still:
            alike = homes[number:]
            bench.comparison.compared += len(alike)
            if found.differences:
                bench.comparison.differing += [DifferingHome(each, found.differences, reference) for each in alike]
            return
        elif found is not None:
            bench.comparison.compared += 1


class _Look(NamedTuple):
    """`still`: the home is not what the reference is. If it is by now, its fingerprint was read in passing."""

    differences: tuple[Difference, ...]
    still: bool


async def _look_closely(
    databases: Databases, version: int, reference: Reference, home: BuiltHome
) -> _Look | str | None:
    """What is so now, why there is no telling, or None for a home that is gone."""
    async with (
        databases.admin(home.place.cluster, home.place.database, purpose="doctor") as connection,
        reading(connection, databases.settings.lock_timeout),
    ):
        found = await read_structure(connection, home.home_id)
    if found is None:
        return None
    if found.version != version:
        return f"it has gone on to version {found.version} meanwhile"
    expected, present = reference.structure.plain(), found.plain()
    return _Look(tuple(find_differences(expected, present)), expected != present)
