"""`cp migrate repair`: homes that are not what their version would build are brought back, one transaction each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import asyncpg

from control_plane.errors import BadRequest, ClusterUnavailable, HomeNotFound
from control_plane.migrator.comparison import Comparison, DifferingHome, Progress, compare
from control_plane.migrator.differences import find_differences
from control_plane.migrator.fingerprints import BuiltHome
from control_plane.migrator.references import read_needs
from control_plane.migrator.restoring import Left, Restoration, restore, tables_to_look_into
from control_plane.migrator.structure import Key, read_structure, reading
from control_plane.migrator.verdicts import ATTEMPTS, Verdict, judge, lock_timeout, patience, sqlstate_of
from control_plane.pools.databases import Databases
from control_plane.registry import audit, tenants
from control_plane.registry.fleet import Place
from control_plane.registry.models import Cluster, Home
from control_plane.templates import Template
from control_plane.templates.script import quote

# As begin_migration() does.
_HOLD = "SELECT pg_try_advisory_xact_lock(hashtextextended('tenancy.home:' || $1::uuid::text, 0))"


@dataclass(frozen=True, slots=True)
class HomeRepair:
    """One home that differs: what brings it back, and what is left to people.

    `planned`: nothing was changed. `repaired`: all of it was done. `failed`: none of it was, because of `error`.
    """

    home: BuiltHome
    status: Literal["planned", "repaired", "failed"]
    statements: tuple[str, ...]
    left: tuple[Left, ...]
    error: str | None = None
    sqlstate: str | None = None

    @property
    def settled(self) -> bool:
        """Whether the home is as it should be now, but for the order of columns."""
        done = self.status == "repaired" or (self.status == "planned" and not self.statements)
        return done and all(each.difference.harmless for each in self.left)


@dataclass(frozen=True, slots=True)
class Repair:
    """`homes` are those that differ, or did; `comparison` is what was found."""

    comparison: Comparison
    homes: tuple[HomeRepair, ...]

    @property
    def settled(self) -> bool:
        """Whether every home that was to be compared is as it should be now."""
        unknown = [each for each in self.comparison.uncompared if not each.expected] or self.comparison.unreached
        return not unknown and all(home.settled for home in self.homes)


async def repair(
    databases: Databases,
    templates: Mapping[str, Template],
    *,
    tenant: str | None = None,
    home: UUID | None = None,
    apply: bool = False,
    actor: str = "library",
    progress: Progress | None = None,
) -> Repair:
    """Plan, or do with `apply`, what brings homes back: all, that of a tenant (slug or id), or the one of an id.

    Raises `TenantNotFound`, `HomeNotFound`, and `BadRequest` for a tenant whose home is everybody's.
    """
    only = await _only(databases, tenant, home)
    comparison = await compare(databases, templates, only=only, progress=progress)
    return Repair(
        comparison, tuple([await _Work(databases, differing, apply, actor).run() for differing in comparison.differing])
    )


async def _only(databases: Databases, tenant: str | None, home: UUID | None) -> dict[UUID, Place] | None:
    async with databases.registry() as session:
        if tenant is not None:
            placed = await tenants.get(session, tenant)
            if placed.tenant.isolation == "shared":
                raise BadRequest(
                    f"'{placed.tenant.slug}' is a shared tenant: its home cannot be repaired for one tenant alone.",
                    hint=f"Repair it for all of them: --home {placed.home.id}",
                )
            return {placed.home.id: Place(placed.cluster, placed.home.database)}
        if home is None:
            return None
        found = await session.get(Home, home)
        if found is None:
            raise HomeNotFound
        return {home: Place(await session.get_one(Cluster, found.cluster_id), found.database)}


class _Undone(Exception):
    """Ends the transaction: what stands in the home after all statements is not what it should be."""


@dataclass(frozen=True, slots=True)
class _Work:
    """One home of the fleet, from plan to commit."""

    databases: Databases
    differing: DifferingHome
    apply: bool
    actor: str

    async def run(self) -> HomeRepair:
        restoration = Restoration()
        try:
            restoration = await self._plan()
            if not self.apply or not restoration.statements:
                return self._told("planned", restoration)
            await self._record(restoration)
            return self._told("repaired", await self._patiently())
        except _Undone as error:
            return self._told("failed", restoration, str(error))
        except ClusterUnavailable as error:
            return self._told("failed", restoration, f"{error.message} ({error.details})")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            return self._told("failed", restoration, _described(error), sqlstate_of(error))

    def _told(
        self,
        status: Literal["planned", "repaired", "failed"],
        restoration: Restoration,
        error: str | None = None,
        sqlstate: str | None = None,
    ) -> HomeRepair:
        return HomeRepair(self.differing.home, status, restoration.statements, restoration.left, error, sqlstate)

    async def _plan(self) -> Restoration:
        place = self.differing.home.place
        async with self.databases.admin(place.cluster, place.database, purpose="repair") as connection:
            return await self._restoration(connection)

    async def _patiently(self) -> Restoration:
        """Do it, with the attempts and the patience of a migration."""
        place = self.differing.home.place
        limit = self.databases.settings.lock_timeout
        async with self.databases.admin(place.cluster, place.database, purpose="repair") as connection:
            for attempt in range(ATTEMPTS):
                try:
                    async with connection.transaction():
                        return await self._do(connection, lock_timeout(attempt, limit))
                except asyncpg.PostgresError as error:
                    if judge(error) is not Verdict.RETRY or attempt + 1 == ATTEMPTS:
                        raise
                await asyncio.sleep(patience(attempt))
            raise AssertionError("the last attempt returns or raises")

    async def _do(self, connection: asyncpg.Connection, seconds: float) -> Restoration:
        """As the home is now, which nobody migrates meanwhile; what was planned may be out of date."""
        home = self.differing.home
        if not await connection.fetchval(_HOLD, home.home_id):
            raise asyncpg.LockNotAvailableError("a migration holds the home")
        await connection.execute(
            f"SET LOCAL search_path = pg_catalog; SET LOCAL lock_timeout = '{int(seconds * 1000)}ms'"
        )
        restoration = await self._restoration(connection)
        for statement in restoration.statements:
            try:
                await connection.execute(statement)
            except asyncpg.PostgresError as error:
                error.add_note(statement.partition("\n")[0])
                raise
        async with reading(connection, self.databases.settings.lock_timeout):
            now = await read_structure(connection, home.home_id)
        assert now is not None
        remaining = find_differences(self.differing.reference.structure.plain(), now.plain())
        if wrong := restoration.unexpected(remaining):
            raise _Undone(f"afterwards it would still differ: {'; '.join(map(str, wrong[:3]))}")
        return restoration

    async def _restoration(self, connection: asyncpg.Connection) -> Restoration:
        home, reference = self.differing.home, self.differing.reference
        async with reading(connection, self.databases.settings.lock_timeout):
            found = await read_structure(connection, home.home_id)
            if found is None or found.version != reference.structure.version:
                raise _Undone("the home has gone on to another version meanwhile")
            needs = await read_needs(connection, found, home.home_id)
            occupied = set()
            for table in tables_to_look_into(reference.structure.objects, found.objects):
                if await _has_rows(connection, found.schema_name, table):
                    occupied.add(table)
        return restore(home.home_id, reference, found, needs, occupied)

    async def _record(self, restoration: Restoration) -> None:
        """Before it is done: a process that dies must not have changed a home in silence."""
        home = self.differing.home
        async with self.databases.registry.begin() as session:
            audit.record(
                session,
                self.actor,
                "home.repair",
                home.tenant_id,
                home=str(home.home_id),
                template=home.template,
                version=home.version,
                differences=[str(each) for each in restoration.repaired],
            )


async def _has_rows(connection: asyncpg.Connection, schema: str, table: Key) -> bool:
    """As cp_owner, whose policy sees the rows of all tenants."""
    name = f"{quote(schema)}.{quote(table.name)}"
    await connection.execute("SET LOCAL ROLE cp_owner")
    found = await connection.fetchval(f"SELECT EXISTS (SELECT FROM {name})")  # noqa: S608 - quoted
    await connection.execute("SET LOCAL ROLE NONE")
    return bool(found)


def _described(error: BaseException) -> str:
    return "; ".join(_parts(error))


def _parts(error: BaseException) -> Iterator[str]:
    yield str(error) or type(error).__name__
    for note in getattr(error, "__notes__", ()):
        yield f"at: {note}"
