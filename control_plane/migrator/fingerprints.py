"""One hash per home of all that stands in it, many homes at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from control_plane.migrator.debts import fetch
from control_plane.migrator.structure import STRUCTURE, reading
from control_plane.migrator.verdicts import patience, sqlstate_of
from control_plane.registry.fleet import Place
from control_plane.settings import shipped

_HOMES = (shipped("sql") / "migrator" / "built_homes.sql").read_text("utf-8")
_FINGERPRINTS = (shipped("sql") / "migrator" / "fingerprints.sql").read_text("utf-8").replace("{structure}", STRUCTURE)

_BATCH = 50  # homes: some half a second, for which a change of their tables has to wait
_SHARE = 4  # a transaction takes at most one part of so many of the server's locks
_ATTEMPTS = 3
# A lock that did not come in time, or an object that went while it was being looked at.
PASSING = {"55P03", "40P01", "57014", "XX000", "3D000", "42P01", "42704", "42883"}


@dataclass(frozen=True, slots=True)
class BuiltHome:
    """A home whose database says that it is at `version`; `relations` it has, `locks` its server has for everybody."""

    place: Place
    home_id: UUID
    isolation: str
    template: str
    schema_name: str
    tenant_id: UUID | None
    version: int
    slug: str | None  # of the tenant; None for a shared home
    tenants: int
    relations: int
    locks: int

    @property
    def label(self) -> str:
        return self.slug or f"{self.isolation} home of {self.tenants} tenants"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`digest` is None where nothing stands, or nothing could be read because of `problem`."""

    home: BuiltHome
    version: int
    digest: str | None
    problem: str | None = None


async def built_homes(
    connection: asyncpg.Connection, place: Place, only: Collection[UUID] | None = None
) -> list[BuiltHome]:
    """The homes of the connection's database that are built and not being deleted, or those of `only` among them.

    Those that owe steps of their version have not all that it builds yet.
    """
    rows = await fetch(connection, _HOMES, None if only is None else ",".join(map(str, only)))
    homes = []
    for row in rows:
        values = dict(row)
        if values["isolation"] == "shared":
            values["slug"] = None
        homes.append(BuiltHome(place=place, **values))
    return homes


async def read_fingerprints(
    connection: asyncpg.Connection, homes: Sequence[BuiltHome], lock_timeout: float
) -> AsyncIterator[list[Fingerprint]]:
    """Those of `homes`, batch by batch; `lock_timeout` in seconds. One that has gone meanwhile has no digest."""
    for batch in batches(homes):
        yield await _patiently(connection, batch, lock_timeout)


def batches(homes: Sequence[BuiltHome]) -> Iterator[list[BuiltHome]]:
    """As many as may be read in one transaction: to print a view locks what it reads, until the transaction ends."""
    batch: list[BuiltHome] = []
    locks = 0
    for home in homes:
        if batch and (len(batch) == _BATCH or (locks + home.relations) * _SHARE > home.locks):
            yield batch
            batch, locks = [], 0
        batch.append(home)
        locks += home.relations
    if batch:
        yield batch


async def _patiently(
    connection: asyncpg.Connection, batch: Sequence[BuiltHome], lock_timeout: float
) -> list[Fingerprint]:
    for attempt in range(_ATTEMPTS):
        try:
            return await _read(connection, batch, lock_timeout)
        except asyncpg.PostgresError as error:
            if sqlstate_of(error) not in PASSING:
                raise
            problem = str(error)
        await asyncio.sleep(patience(attempt))
    if len(batch) == 1:
        return [Fingerprint(batch[0], batch[0].version, None, problem)]
    # One of them stands in the way of all.
    return [each for home in batch for each in await _patiently(connection, [home], lock_timeout)]


async def _read(connection: asyncpg.Connection, batch: Sequence[BuiltHome], lock_timeout: float) -> list[Fingerprint]:
    async with reading(connection, lock_timeout):
        rows = await connection.fetch(_FINGERPRINTS, ",".join(str(home.home_id) for home in batch))
    found = {row["home_id"]: row for row in rows}
    return [
        Fingerprint(home, found[home.home_id]["version"], found[home.home_id]["fingerprint"])
        if home.home_id in found
        else Fingerprint(home, home.version, None)
        for home in batch
    ]
