"""How many homes are read at once."""

from __future__ import annotations

from uuid import uuid4

import pytest

from control_plane.migrator.fingerprints import BuiltHome, batches
from control_plane.registry.fleet import Place
from control_plane.registry.models import Cluster


def homes(count: int, relations: int, locks: int) -> list[BuiltHome]:
    place = Place(Cluster(name="main"), "tenants")
    return [
        BuiltHome(
            place=place,
            home_id=uuid4(),
            isolation="schema",
            template="sample",
            schema_name=f"t_{number}",
            tenant_id=uuid4(),
            version=1,
            slug=f"acme-{number}",
            tenants=1,
            relations=relations,
            locks=locks,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "relations", "locks", "sizes"),
    [
        (0, 76, 6_400, []),
        (120, 10, 1_000_000, [50, 50, 20]),
        (50, 76, 6_400, [21, 21, 8]),  # a quarter of the locks of a server as it comes
        (2, 9_000, 6_400, [1, 1]),
    ],
)
def test_a_batch_has_a_bounded_number_of_homes_and_takes_a_part_of_the_locks(
    count: int, relations: int, locks: int, sizes: list[int]
) -> None:
    given = homes(count, relations, locks)
    found = list(batches(given))
    assert [len(batch) for batch in found] == sizes
    assert [home for batch in found for home in batch] == given
