"""What a version owes a home after its transaction: concurrent.sql statement by statement, backfill.sql batch by batch.

How far a home is stands in its database, so that whoever comes next goes on there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from control_plane.migrator.apart import fill, perform
from control_plane.migrator.link import Link
from control_plane.migrator.places import noted
from control_plane.migrator.plan import DueHome
from control_plane.migrator.reins import Reins
from control_plane.migrator.results import Touched
from control_plane.pools.databases import RESET
from control_plane.templates import Template
from control_plane.templates.script import quote

if TYPE_CHECKING:
    from control_plane.templates.lint.apart import Apart

# Seconds. What is done CONCURRENTLY waits for the transactions that were there before it, while nobody waits for it: so
# it may outlast long ones, but not wait for ever for a session that idles in one.
_PATIENCE = 600.0
_DEBT = "SELECT statement, rows FROM tenancy.open_steps WHERE home_id = $1 AND version = $2 AND step = $3"
_NOTE = "SELECT tenancy.note_step($1, $2, $3, $4, $5)"
_FINISH = "SELECT tenancy.finish_step($1, $2, $3)"


@dataclass(frozen=True, slots=True)
class Debt:
    """A step that `home` owes; `lock_timeout` in seconds is for each batch.

    `report(statement, statements, rows)` tells what is under way, and `advance` what was done for good.
    """

    home: DueHome
    version: int
    step: str
    lock_timeout: float
    report: Callable[[int, int, int], None]
    advance: Callable[[Touched], None]

    @property
    def key(self) -> tuple[UUID, int, str]:
        return self.home.home_id, self.version, self.step


@dataclass(slots=True)
class Steps:
    """Of one template, for one run. A backfill works `share` of the time."""

    template: Template
    reins: Reins
    share: float
    _statements: dict[tuple[int, str], list[Apart]] = field(default_factory=dict)

    async def pay(self, link: Link, debt: Debt) -> bool:
        """Work a debt off; False when the run was stopped or paused in the middle of it, and the home let go.

        Raises what the server says, noted with its place: CP002 where another session holds the home, CP005 where as
        many indexes as may be are being built, CP006 where the tenant is being deleted.
        """
        async with _session(link, debt) as connection:
            found = await connection.fetchrow(_DEBT, *debt.key)
            if found is None:  # another runner was quicker
                return True
            statements, rows = self._parsed(debt.version, debt.step), int(found["rows"])
            for number in range(found["statement"], len(statements)):
                changed = 1
                while changed:
                    debt.report(number + 1, len(statements), rows)
                    if self.reins.held_back:
                        return False
                    began = monotonic()
                    with noted(self._label(debt.version, debt.step), statements[number].sql, statements[number].line):
                        changed = await self._do(connection, debt, number, statements[number])
                    debt.advance(_touched(statements[number], changed))
                    rows += changed
                    if changed:
                        await self.reins.sleep((monotonic() - began) * (1 / self.share - 1))
            await connection.execute(_FINISH, *debt.key)
        return True

    @staticmethod
    async def _do(connection: asyncpg.Connection, debt: Debt, number: int, statement: Apart) -> int:
        """A statement, or a batch of it: the rows that it changed, none when it is done."""
        if debt.step == "concurrent":
            await perform(connection, debt.home.schema_name, statement)
            await connection.execute(_NOTE, *debt.key, number + 1, 0)
            return 0
        async with connection.transaction():
            changed = await fill(connection, statement.sql)
            await connection.execute(_NOTE, *debt.key, number if changed else number + 1, changed)
        return changed

    def _parsed(self, version: int, step: str) -> Sequence[Apart]:
        from control_plane.templates.lint.apart import apart  # with PostgreSQL's parser, which takes a moment

        if (version, step) not in self._statements:
            sql = self.template.version(version).beside.get(step, "")
            self._statements[version, step] = apart(self._label(version, step), sql)
        return self._statements[version, step]

    def _label(self, version: int, step: str) -> str:
        return f"{self.template.version(version).name}/{step}.sql"


def _touched(statement: Apart, rows: int) -> Touched:
    built = [statement.name] if statement.kind == "build" else []
    return Touched({"tables": [], "views": [], "indexes": built, "functions": []}, rows)


@asynccontextmanager
async def _session(link: Link, debt: Debt) -> AsyncIterator[asyncpg.Connection]:
    """A session that holds the home, set for the step; nothing of it is left to whoever uses the link next."""
    builds = debt.step == "concurrent"
    wait = _PATIENCE if builds else debt.lock_timeout
    connection = await link.to(debt.home.place.database)
    try:
        await connection.execute(
            f"SELECT tenancy.hold_home('{debt.home.home_id}');{' SELECT tenancy.hold_build();' if builds else ''}"
            f" SET search_path = {quote(debt.home.schema_name)}, extensions, pg_temp;"
            f" SET lock_timeout = '{int(wait * 1000)}ms'; SET statement_timeout = 0"
        )
        yield connection
        await connection.execute(RESET)
    except BaseException:
        await link.close()
        raise
