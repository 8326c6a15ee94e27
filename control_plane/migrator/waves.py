"""In which order homes go: a few that tell whether a version is sound, then more and more, shared homes last."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from uuid import UUID

from control_plane.migrator.plan import DueHome
from control_plane.migrator.policy import WavePolicy

# Pages of 8 KiB from which on a home counts as medium (1 MiB), and as large (100 MiB).
_SIZES = (128, 12_800)


@dataclass(frozen=True, slots=True)
class Wave:
    """Homes that run before those of the next wave begin; a `trial` tells whether the next one may."""

    name: str
    homes: tuple[DueHome, ...]
    trial: bool = False


def make_waves(homes: Sequence[DueHome], policy: WavePolicy, internal: Set[UUID] = frozenset()) -> list[Wave]:
    """Every home in exactly one wave. The order is the same each time, so that a run that goes on goes on where it was.

    A shared home cannot be tried on one tenant first, so those come last.
    """
    dedicated = sorted((home for home in homes if home.isolation != "shared"), key=_shuffled)
    first = [home for home in dedicated if home.home_id in internal]
    others = [home for home in dedicated if home.home_id not in internal]
    largest = _largest(others, policy.largest)
    others = [home for home in others if home.home_id not in largest]
    canaries = _canaries(others, policy.canaries)
    queue = [home for home in others if home.home_id not in {canary.home_id for canary in canaries}]

    waves = [Wave("internal", _in_place(first), trial=True), Wave("canary", _in_place(canaries), trial=True)]
    gone = len(canaries)
    for share in policy.shares:
        upto = math.ceil(share * len(others))
        part, queue = queue[: max(0, upto - gone)], queue[max(0, upto - gone) :]
        gone += len(part)
        waves.append(Wave(f"{share:.0%}", _in_place(part)))
    waves.append(Wave("rest", _in_place(queue)))
    waves.append(Wave("largest", _in_place(largest.values())))
    waves.append(Wave("shared", _in_place(home for home in homes if home.isolation == "shared")))
    return [wave for wave in waves if wave.homes]


def one_wave(homes: Sequence[DueHome]) -> list[Wave]:
    """For tenants that somebody has named, and for those that were made during a run: shared homes still come last."""
    dedicated = _in_place(home for home in homes if home.isolation != "shared")
    shared = _in_place(home for home in homes if home.isolation == "shared")
    return [wave for wave in (Wave("named", dedicated), Wave("shared", shared)) if wave.homes]


def _canaries(homes: Sequence[DueHome], each: int) -> list[DueHome]:
    taken: dict[tuple[UUID, str, int, int], int] = {}
    found = []
    for home in homes:
        group = (home.place.cluster.id, home.isolation, _size(home), home.version)
        if taken.get(group, 0) < each:
            taken[group] = taken.get(group, 0) + 1
            found.append(home)
    return found


def _largest(homes: Sequence[DueHome], share: float) -> dict[UUID, DueHome]:
    number = math.floor(share * len(homes))
    by_size = sorted(homes, key=lambda home: home.pages, reverse=True)
    return {home.home_id: home for home in by_size[:number]}


def _size(home: DueHome) -> int:
    return sum(home.pages >= limit for limit in _SIZES)


def _shuffled(home: DueHome) -> bytes:
    return hashlib.sha256(home.home_id.bytes).digest()


def _in_place(homes: Iterable[DueHome]) -> tuple[DueHome, ...]:
    """By cluster and database, so that connections are kept."""
    return tuple(sorted(homes, key=lambda home: (home.place.cluster.name, home.place.database)))
