"""Runs the versions of a template on a home that nobody keeps, and looks what each locks, writes anew and takes away.

Each version meets rows that the smoke files of those before it have made. The home stands in a database of its own, so
that versions can be committed one after the other: a transaction that had made the tables would hold all their locks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg

from control_plane.isolation.extensions import install_extensions
from control_plane.migrator.apart import fill
from control_plane.migrator.locks import LockRecorder, VersionLocks
from control_plane.migrator.places import noted, place
from control_plane.migrator.scratch import scratch_database
from control_plane.migrator.snapshot import Loss, Snapshot, losses, take, untrue_deprecations
from control_plane.pools import gate
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.templates import Template, Version
from control_plane.templates.lint import Finding, waived
from control_plane.templates.lint.apart import apart, inside
from control_plane.templates.lint.foreseen import foreseen
from control_plane.templates.script import quote

_INSTEAD = {
    "api-column": "keep the columns as they were and add new ones at the end",
    "api-key": "keep it, announce it under [[deprecations]] with removed_in, or leave it to a new API version",
    "api-type": "keep the type and add a new key",
    "catalogue-lost": "keep it beside what is new, or waive this with the reason",
    "contract-dependents": "let what depends on it go first, or read something else; CASCADE would take it away too",
    "deprecation": "correct template.toml or the view",
    "rewrite": "add a column beside it and fill that in backfill.sql, or waive this with the reason",
    "unforeseen-lock": "find out what locks it, and waive this when requests can wait",
}


_ROUNDS = 20  # of a backfill, on the few rows of smoke files


class _Endless(Exception):
    """A statement of backfill.sql goes on changing rows."""

    def __init__(self, label: str, line: int) -> None:
        super().__init__(
            f"still changes rows after {_ROUNDS} rounds, and so for ever: let its WHERE leave out what it has changed"
        )
        self.label = label
        self.line = line


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What was found, and the lock report of each version that was judged, but for a template's first one."""

    template: str
    findings: list[Finding]
    locks: list[VersionLocks]


async def rehearse(
    databases: Databases,
    cluster: Cluster,
    template: Template,
    versions: Sequence[int] | None = None,
    *,
    database: str | None = None,
) -> Rehearsal:
    """What `versions` (all when absent) do that only running them tells.

    The template must have passed the gate, since its SQL runs as cp_owner. `database` is one with this release's
    `tenancy` where the caller has one; the home in it goes in any case. Raises `ClusterUnavailable`.
    """
    wanted = set(versions if versions is not None else range(1, template.latest + 1))
    if database is None:
        async with scratch_database(databases, cluster) as made:
            return await rehearse(databases, cluster, template, versions, database=made)
    async with databases.admin(cluster, database, purpose="rehearsal") as connection:
        await install_extensions(connection, template)
        stage = _Stage(connection, template, databases.settings.lock_timeout)
        async with stage.home_of_nobody():
            first, last = min(wanted, default=1), max(wanted, default=0)
            if await stage.build(first - 1):
                for version in template.versions[first - 1 : last]:
                    if not await stage.play(version, judge=version.number in wanted):
                        break
        return Rehearsal(template.name, stage.found, stage.locks)


@dataclass
class _Stage:
    """A schema home of a tenant that nobody will know of."""

    connection: asyncpg.Connection
    template: Template
    lock_timeout: float
    home: UUID = field(default_factory=uuid4)
    tenant: UUID = field(default_factory=uuid4)
    user: UUID = field(default_factory=uuid4)
    schema: str = ""
    found: list[Finding] = field(default_factory=list)
    locks: list[VersionLocks] = field(default_factory=list)

    @asynccontextmanager
    async def home_of_nobody(self) -> AsyncIterator[None]:
        # The administrative role takes the place of a request role: a home's own login role could be made, but nobody
        # could be it in this session.
        slug = f"rehearsal-{self.home.hex[:12]}"
        async with self.connection.transaction():
            self.schema = await self.connection.fetchval(
                "SELECT tenancy.create_tenant_schema($1, $2, $3, $4, session_user)",
                slug, self.tenant, self.home, self.template.name,
            )  # fmt: skip
            await self._put_tenant(slug, "active")
        try:
            yield
        finally:
            async with self.connection.transaction():
                await self._put_tenant(slug, "suspended")
                await self.connection.execute("SELECT tenancy.drop_tenant_schema($1)", slug)

    async def _put_tenant(self, slug: str, state: str) -> None:
        await self.connection.execute(
            "SELECT tenancy.put_tenant($1, $2, $3, $4, 1)", self.tenant, self.home, slug, state
        )

    async def build(self, upto: int) -> bool:
        """The home at version `upto`, as a new one is built; False when it cannot be built."""
        return upto == 0 or await self._reach(0, self.template.version(upto))

    async def play(self, version: Version, *, judge: bool) -> bool:
        """Apply one version; False when it does not apply, and so no later one can."""
        if judge and version.number > 1:
            await self._judge(version)
        if not await self._reach(version.number - 1, version):
            return False
        if judge:
            await self._smoke_alone(version)
        if judge and version.number == self.template.latest:
            async with self._undone():
                after = await self._with_rows(version.number)
                self._lost(version, untrue_deprecations(self.template, version.number, after))
        return True

    async def _reach(self, start: int, version: Version) -> bool:
        """Bring the home from `start` to `version`, for good."""
        try:
            async with self.connection.transaction():
                await self._apply(start, version)
            for step in self.template.script(start, version.number).beside:
                await self._take_step(version, step)
        except (asyncpg.PostgresError, _Endless) as error:
            self._failed(version, error, "")
            return False
        return True

    async def _judge(self, version: Version) -> None:
        """Compare before and after on the rows that the smoke files up to the version before have made."""
        async with self._undone():
            before = await self._with_rows(version.number - 1)
            recorder = await LockRecorder.watch(self.connection, self.schema)
            try:
                await self._apply(version.number - 1, version, recorder)
                await self._take_steps_inside(version)
            except (asyncpg.PostgresError, _Endless) as error:
                self._failed(version, error, "does not apply to rows: ")
                return
            after = await take(self.connection, self.schema, self._bind)
            self.locks.append(VersionLocks(version.number, version.name, recorder.report()))
            said = foreseen(version)
            self._lost(
                version,
                (
                    loss
                    for loss in losses(self.template, version.number, before, after)
                    if loss.rule != "catalogue-lost" or loss.api is not None or loss.subject not in said.removed
                ),
            )
            reasons = waived(self.template, version.number)
            for rule, file, message in recorder.surprises(said.locked, said.rewritten):
                if rule not in reasons:
                    self._add(version, file, 1, rule, message)

    async def _with_rows(self, upto: int) -> Snapshot:
        for earlier in self.template.versions[:upto]:
            try:
                async with self.connection.transaction():
                    await self._smoke(earlier)
            except asyncpg.PostgresError:
                continue  # smoke files are written to run alone: this one does not mix with rows of another
        return await take(self.connection, self.schema, self._bind)

    async def _smoke_alone(self, version: Version) -> None:
        async with self._undone():
            try:
                await self._smoke(version)
            except asyncpg.PostgresError as error:
                self._failed(version, error, "smoke.sql fails: ", "smoke.sql")

    async def _apply(self, start: int, version: Version, recorder: LockRecorder | None = None) -> None:
        script = self.template.script(start, version.number)
        for label, sql in script.sections(self.home, self.schema, self.lock_timeout):
            with noted(label, sql):
                await self.connection.execute(f"{sql}\nSELECT")  # asyncpg cannot take a text without a statement
            if recorder is not None:
                await recorder.note(label)

    async def _take_step(self, version: Version, step: str) -> None:
        """As in homes, but that what is there already is no leftover of an attempt before."""
        await self.connection.execute(f"SET search_path = {quote(self.schema)}, extensions, pg_temp")
        label = f"{version.name}/{step}.sql"
        try:
            if step == "concurrent":
                await self.connection.execute("SET ROLE cp_owner")
                await self._one_by_one(label, version.beside[step])
            else:
                await self._fill(label, version.beside[step])
        finally:
            await self.connection.execute("RESET ROLE; RESET search_path")
        await self.connection.execute("SELECT tenancy.finish_step($1, $2, $3)", self.home, version.number, step)

    async def _take_steps_inside(self, version: Version) -> None:
        """In the transaction that is undone, on its rows: nothing CONCURRENTLY."""
        await self.connection.execute(f"SET LOCAL search_path = {quote(self.schema)}, extensions, pg_temp")
        for step, sql in version.beside.items():
            label = f"{version.name}/{step}.sql"
            if step == "concurrent":
                await self.connection.execute("SET LOCAL ROLE cp_owner")
                await self._one_by_one(label, inside(label, sql))
                await self.connection.execute("SET LOCAL ROLE NONE")
            else:
                await self._fill(label, sql)

    async def _one_by_one(self, label: str, sql: str) -> None:
        for each in apart(label, sql):
            with noted(label, each.sql, each.line):
                await self.connection.execute(each.sql)

    async def _fill(self, label: str, sql: str) -> None:
        """Each statement until it changes nothing; raises `_Endless` where that does not come."""
        for each in apart(label, sql):
            for _ in range(_ROUNDS):
                async with self.connection.transaction():
                    with noted(label, each.sql, each.line):
                        changed = await fill(self.connection, each.sql)
                if not changed:
                    break
            else:
                raise _Endless(label, each.line)

    async def _smoke(self, version: Version) -> None:
        if version.smoke is None:
            return
        api = self.template.default_api(version.number)
        path = f"{quote(f'{self.schema}__api_v{api}')}, {quote(self.schema)}, extensions, pg_temp"
        await self.connection.execute(f"SET LOCAL search_path = {path}; SET LOCAL timezone = 'UTC'")
        await self._bind(())
        with noted(f"{version.name}/smoke.sql", version.smoke):
            await self.connection.execute(version.smoke)
        # No table can be altered while a deferred trigger waits for the commit that never comes.
        await self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")

    async def _bind(self, roles: Sequence[str]) -> None:
        await self.connection.fetchval(gate.BIND, self.tenant, self.user, None, list(roles), False)

    @asynccontextmanager
    async def _undone(self) -> AsyncIterator[None]:
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            yield
        finally:
            await transaction.rollback()

    def _failed(
        self, version: Version, error: asyncpg.PostgresError | _Endless, prefix: str, file: str = "expand.sql"
    ) -> None:
        if isinstance(error, _Endless):
            self._add(version, error.label, error.line, "rehearsal", str(error))
            return
        label, line = place(error) or (f"{version.name}/{file}", 1)
        if isinstance(error, asyncpg.DependentObjectsStillExistError):
            fields = error.as_dict()
            message = f"{fields['message']}: {fields.get('detail', '')}".replace("\n", "; ")
            self._add(version, label, line, "contract-dependents", self._unqualified(message))
        else:
            self._add(version, label, line, "rehearsal", f"{prefix}{error}")

    def _unqualified(self, text: str) -> str:
        """Without the schema's name, which is made up, but with that of an API version."""
        return text.replace(f"{self.schema}__", "").replace(f"{self.schema}.", "")

    def _lost(self, version: Version, found: Iterable[Loss]) -> None:
        reasons = waived(self.template, version.number)
        for loss in dict.fromkeys(found):
            if loss.rule not in reasons:
                file = f"{version.name}/{'expand' if loss.api is None else f'api_v{loss.api}'}.sql"
                self._add(version, file, 1, loss.rule, loss.message)

    def _add(self, version: Version, label: str, line: int, rule: str, message: str) -> None:
        if not (version.path.parent / label).is_file():
            label = f"{version.name}/{next(iter(sorted(path.name for path in version.path.glob('*.sql'))))}"
        instead = _INSTEAD.get(rule, "correct the version")
        finding = Finding(self.template.name, label, line, rule, message, instead)
        if finding not in self.found:
            self.found.append(finding)
