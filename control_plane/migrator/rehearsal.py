"""Runs the versions of a template on a home that is never committed, and looks what each takes away.

Each version meets rows that the smoke files of those before it have made. All of it is one transaction on a cluster's
tenants database, which is undone: no role, no schema and no row stays behind.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg

from control_plane.errors import ConfigurationError
from control_plane.isolation.extensions import install_extensions
from control_plane.isolation.tenancy_schema import latest_version, tenancy_version
from control_plane.migrator.snapshot import Loss, Snapshot, losses, take, untrue_deprecations
from control_plane.pools import gate
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.templates import Template, Version
from control_plane.templates.lint import Finding, waived
from control_plane.templates.script import quote

_INSTEAD = {
    "api-column": "keep the columns as they were and add new ones at the end",
    "api-key": "keep it, announce it under [[deprecations]] with removed_in, or leave it to a new API version",
    "api-type": "keep the type and add a new key",
    "catalogue-lost": "keep it beside what is new, or waive this with the reason",
    "deprecation": "correct template.toml or the view",
}


async def rehearse(
    databases: Databases, cluster: Cluster, template: Template, versions: Sequence[int] | None = None
) -> list[Finding]:
    """What `versions` (all when absent) do that only running them tells.

    The template must have passed the gate, since its SQL runs as cp_owner. Raises `ClusterUnavailable`, and
    `ConfigurationError` where the schema `tenancy` is of an earlier release.
    """
    wanted = set(versions if versions is not None else range(1, template.latest + 1))
    async with databases.admin(cluster, purpose="rehearsal") as connection:
        if await tenancy_version(connection) < latest_version():
            raise ConfigurationError(
                "The cluster's schema tenancy is not at this release's version.", hint="Run: cp init"
            )
        transaction = connection.transaction()
        await transaction.start()
        try:
            await install_extensions(connection, template)
            stage = _Stage(connection, template, databases.settings.lock_timeout)
            await stage.set_up()
            for version in template.versions[: max(wanted, default=0)]:
                if not await stage.play(version, judge=version.number in wanted):
                    break
            return stage.found
        finally:
            await transaction.rollback()


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

    async def set_up(self) -> None:
        # A name of its own, so that stamps of real homes do not wait for ours. The administrative role takes the place
        # of a request role: a home's own login role could be made, but nobody could be it in this session.
        slug = f"rehearsal-{self.home.hex[:12]}"
        name = f"{self.template.name}#{self.home.hex}"
        self.schema = await self.connection.fetchval(
            "SELECT tenancy.create_tenant_schema($1, $2, $3, $4, session_user)", slug, self.tenant, self.home, name
        )
        await self.connection.execute(
            "SELECT tenancy.put_tenant($1, $2, $3, 'active', 1)", self.tenant, self.home, slug
        )

    async def play(self, version: Version, *, judge: bool) -> bool:
        """Apply one version; False when it does not apply, and so no later one can."""
        if judge and version.number > 1:
            await self._judge(version)
        try:
            async with self.connection.transaction():
                await self._apply(version)
        except asyncpg.PostgresError as error:
            self._add(version, *_place(error, f"{version.name}/expand.sql"), "rehearsal", str(error))
            return False
        if judge:
            await self._smoke_alone(version)
        if judge and version.number == self.template.latest:
            async with self._undone():
                after = await self._with_rows(version.number)
                self._lost(version, untrue_deprecations(self.template, version.number, after))
        return True

    async def _judge(self, version: Version) -> None:
        """Compare before and after on the rows that the smoke files up to the version before have made."""
        async with self._undone():
            before = await self._with_rows(version.number - 1)
            try:
                await self._apply(version)
            except asyncpg.PostgresError as error:
                label, line = _place(error, f"{version.name}/expand.sql")
                self._add(version, label, line, "rehearsal", f"does not apply to rows: {error}")
                return
            after = await take(self.connection, self.schema, self._bind)
            self._lost(version, losses(self.template, version.number, before, after))

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
                label, line = _place(error, f"{version.name}/smoke.sql")
                self._add(version, label, line, "rehearsal", f"smoke.sql fails: {error}")

    async def _apply(self, version: Version) -> None:
        script = self.template.script(version.number - 1, version.number)
        for label, sql in script.sections(self.home, self.schema, self.lock_timeout):
            try:
                await self.connection.execute(f"{sql}\nSELECT")  # asyncpg cannot take a text without a statement
            except asyncpg.PostgresError as error:
                if label is not None:
                    error.add_note(f"{label}:{sql.count(chr(10), 0, int(getattr(error, 'position', None) or 1)) + 1}")
                raise

    async def _smoke(self, version: Version) -> None:
        if version.smoke is None:
            return
        api = self.template.default_api(version.number)
        path = f"{quote(f'{self.schema}__api_v{api}')}, {quote(self.schema)}, extensions, pg_temp"
        await self.connection.execute(f"SET LOCAL search_path = {path}; SET LOCAL timezone = 'UTC'")
        await self._bind(())
        await self.connection.execute(version.smoke)
        # No table can be altered while a deferred trigger waits for the commit that never comes.
        await self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")

    async def _bind(self, roles: Sequence[str]) -> None:
        await self.connection.fetchval(gate.BIND, self.tenant, self.user, None, list(roles), False)

    @asynccontextmanager
    async def _undone(self) -> AsyncIterator[None]:
        savepoint = self.connection.transaction()
        await savepoint.start()
        try:
            yield
        finally:
            await savepoint.rollback()

    def _lost(self, version: Version, found: Iterable[Loss]) -> None:
        reasons = waived(self.template, version.number)
        for loss in dict.fromkeys(found):
            if loss.rule not in reasons:
                file = f"{version.name}/{'expand' if loss.api is None else f'api_v{loss.api}'}.sql"
                self._add(version, file, 1, loss.rule, loss.message)

    def _add(self, version: Version, label: str, line: int, rule: str, message: str) -> None:
        if not (version.path / label.rpartition("/")[2]).is_file():
            label = f"{version.name}/{next(iter(sorted(path.name for path in version.path.glob('*.sql'))))}"
        instead = _INSTEAD.get(rule, "correct the version")
        finding = Finding(self.template.name, label, line, rule, message, instead)
        if finding not in self.found:
            self.found.append(finding)


_NOTE = re.compile(r"(?P<label>.+\.sql):(?P<line>\d+)")


def _place(error: asyncpg.PostgresError, otherwise: str) -> tuple[str, int]:
    """The file and line that the error was noted with."""
    for note in getattr(error, "__notes__", ()):
        if match := _NOTE.fullmatch(note):
            return match["label"], int(match["line"])
    return otherwise, 1
