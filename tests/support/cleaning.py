"""Leaves a server that outlives the session without the session's databases and roles."""

from __future__ import annotations

from uuid import UUID

from control_plane.isolation.cluster import drop_database
from control_plane.testing.installation import drop_installation as drop_made_by
from tests.support.servers import Server

_DATABASES = "SELECT datname FROM pg_database WHERE starts_with(datname, $1) ORDER BY datname"
# Those of the session in which roles of an installation own objects or hold grants: databases that it has adopted.
_ADOPTED = """
SELECT DISTINCT d.datname
FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid JOIN pg_roles r ON r.oid = s.refobjid
WHERE starts_with(d.datname, $1) AND starts_with(r.rolname, $2)
"""


async def clean(server: Server) -> None:
    """Drop the session's databases and all that its installations made; the three group roles stay."""
    async with server.connection() as connection:
        own = [row["datname"] for row in await connection.fetch(_DATABASES, f"{server.session}_")]
        installations = [*server.installations, *await _installations(server, own)]
        for name in own:  # first, because roles of the installations may own objects or hold grants in them
            await drop_database(connection, name)
        await drop_made_by(connection, *dict.fromkeys(installations))


async def drop_installation(server: Server, installation: UUID) -> None:
    """Drop what a finished test made, where that is worth it: memory is scarce, and creating files there stays fast."""
    if server.in_memory:
        server.installations.remove(installation)
        async with server.connection() as connection:
            prefix = f"cp_{installation.hex[:8]}_"
            for row in await connection.fetch(_ADOPTED, f"{server.session}_", prefix):
                await drop_database(connection, row["datname"])
            await drop_made_by(connection, installation)


async def _installations(server: Server, databases: list[str]) -> list[UUID]:
    """The ids that processes under test gave themselves, read from their registries."""
    found: list[UUID] = []
    for name in databases:
        async with server.connection(name) as connection:
            if await connection.fetchval("SELECT to_regclass('public.installation')") is not None:
                found += [row["id"] for row in await connection.fetch("SELECT id FROM installation")]
    return found
