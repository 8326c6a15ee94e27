"""Registries that tests take turns with: a copied database is a thousand files, an emptied one is none."""

from __future__ import annotations

from control_plane.registry.models import Base, Installation, JobMigration
from tests.support.servers import Server

_KEPT = {Installation.__tablename__, JobMigration.__tablename__}
_JOBS = ("procrastinate_events", "procrastinate_periodic_defers", "procrastinate_jobs", "procrastinate_workers")
_EMPTY = "; ".join(
    [
        *(f"DELETE FROM {table.name}" for table in reversed(Base.metadata.sorted_tables) if table.name not in _KEPT),
        *(f"DELETE FROM {name}" for name in _JOBS),
        "UPDATE installation SET id = gen_random_uuid()",
    ]
)
_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Registries:
    """Copies of a migrated registry. `template` is the name of the database that is copied."""

    def __init__(self, server: Server, template: str) -> None:
        self._server = server
        self._template = template
        self._free: list[str] = []

    async def take(self) -> str:
        """The name of a registry as its migrations leave it."""
        return self._free.pop() if self._free else await self._server.create_database(self._template)

    async def give_back(self, name: str) -> None:
        async with self._server.connection(name) as connection:
            if await connection.fetchval(_OTHERS) == 0:  # else somebody may still write to it
                await connection.execute(_EMPTY)
                self._free.append(name)
