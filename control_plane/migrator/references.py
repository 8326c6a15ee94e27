"""Homes as a template would build them at once: what those of the fleet are held against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple
from uuid import uuid4

import asyncpg

from control_plane.isolation.extensions import install_extensions
from control_plane.migrator.fingerprints import built_homes, read_fingerprints
from control_plane.migrator.scratch import scratch_database
from control_plane.migrator.structure import Key, Structure, read_structure, reading
from control_plane.pools.databases import Databases
from control_plane.registry.fleet import Place
from control_plane.registry.models import Cluster
from control_plane.settings import shipped
from control_plane.templates import Template

_NEEDS = (shipped("sql") / "migrator" / "needs.sql").read_text("utf-8")
# A login role would outlive the database. A role serves one home, so each gives it back once it has been read.
_REGISTER = "SELECT tenancy.register_home('{home}', '{isolation}', '{template}', {tenant}, session_user::text);"
_GIVE_BACK = "DELETE FROM tenancy.home_roles WHERE home_id = $1"
_ROUTINES = "SELECT oid::text, pg_get_functiondef(oid) FROM pg_proc WHERE oid = ANY ($1::oid[]) AND prokind <> 'a'"


class Blueprint(NamedTuple):
    """What decides how a home is built on one cluster."""

    template: str
    version: int
    isolation: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A home that stood in a database that is gone. `routines` are the statements that create its functions."""

    digest: str
    structure: Structure
    needs: Mapping[Key, frozenset[Key]]
    routines: Mapping[Key, str]


class References:
    """Builds each home that is asked for once; nothing is built where none is."""

    def __init__(self, databases: Databases, cluster: Cluster, stack: AsyncExitStack) -> None:
        self._databases = databases
        self._cluster = cluster
        self._stack = stack
        self._database: str | None = None
        self._built: dict[Blueprint, Reference] = {}

    async def get(self, template: Template, version: int, isolation: str) -> Reference:
        """Raises `ClusterUnavailable`, `ExtensionUnavailable`, and what the server says."""
        blueprint = Blueprint(template.name, version, isolation)
        if blueprint not in self._built:
            if self._database is None:
                self._database = await self._stack.enter_async_context(scratch_database(self._databases, self._cluster))
            self._built[blueprint] = await self._build(self._database, template, version, isolation)
        return self._built[blueprint]

    async def _build(self, database: str, template: Template, version: int, isolation: str) -> Reference:
        home, lock_timeout = uuid4(), self._databases.settings.lock_timeout
        tenant = "NULL" if isolation == "shared" else f"'{uuid4()}'"
        register = _REGISTER.format(home=home, isolation=isolation, template=template.name, tenant=tenant)
        async with self._databases.admin(self._cluster, database, purpose="doctor") as connection:
            await install_extensions(connection, template)
            schema = f"t_{home.hex[:12]}"
            await connection.execute(f"{register}\n{template.script(0, version).message(home, schema, lock_timeout)}")
            (built,) = await built_homes(connection, Place(self._cluster, database), [home])
            ((fingerprint,),) = [each async for each in read_fingerprints(connection, [built], lock_timeout)]
            async with reading(connection, lock_timeout):
                structure = await read_structure(connection, home)
                assert structure is not None
                assert fingerprint.digest is not None
                needs = await read_needs(connection, structure, home)
                routines = await _read_routines(connection, structure)
            await connection.execute(_GIVE_BACK, home)
        return Reference(fingerprint.digest, structure, needs, routines)


@asynccontextmanager
async def open_references(databases: Databases, cluster: Cluster) -> AsyncIterator[References]:
    """What is built goes at the end; the references that were got stay valid."""
    async with AsyncExitStack() as stack:
        yield References(databases, cluster, stack)


async def read_needs(connection: asyncpg.Connection, structure: Structure, home: object) -> dict[Key, frozenset[Key]]:
    """Which objects of a home need which others; within `reading`."""
    needs: dict[Key, set[Key]] = {}
    for row in await connection.fetch(_NEEDS, home):
        key, needed = (_at(structure, row[name]) for name in ("object", "needed"))
        # A sequence goes with its column, which needs it in turn.
        if key is not None and needed is not None and key != needed and key.kind != "sequence":
            needs.setdefault(key, set()).add(needed)
    return {key: frozenset(needed) for key, needed in needs.items()}


def _at(structure: Structure, address: str) -> Key | None:
    """Columns of views are no objects of their own."""
    return structure.keys.get(address) or structure.keys.get(address.rpartition(" ")[0] + " 0")


async def _read_routines(connection: asyncpg.Connection, structure: Structure) -> dict[Key, str]:
    found = {
        address.split()[1]: key for address, key in structure.keys.items() if key.kind == "function"
    }  # the address is that of pg_proc
    rows = await connection.fetch(_ROUTINES, [int(oid) for oid in found])
    return {found[row[0]]: row[1] for row in rows}
