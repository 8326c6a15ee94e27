"""`migrate-all` over large fleets: whether ten thousand homes cost more each than a hundred; what tenants notice."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TypeVar
from uuid import uuid4

from sqlalchemy import select, text

from benchmarks.figures import Ratio, Report, Series, ratio
from benchmarks.load import Task, measure
from benchmarks.releases import (
    LABELS,
    PREPARING,
    Stored,
    copy_templates,
    migrate_once,
    release_versions,
    server_seconds,
    vacuum,
    write_next_version,
)
from benchmarks.scene import requests_for
from benchmarks.stage import environment, installation, onboard, server_settings, service, settings_for, temporary_home
from control_plane.embedded import EmbeddedServer
from control_plane.isolation.names import schema_name
from control_plane.registry.models import Cluster, Tenant
from control_plane.service import ControlPlane
from control_plane.settings import Settings

T = TypeVar("T")

TEMPLATE, PATH = "starter", "/api/v1/notes"

# One column, one table, two views: one new, one replaced.
_NEXT = f"""
ALTER TABLE tb_note ADD COLUMN archived_at timestamptz;

{LABELS}
CREATE VIEW v_label_card WITH (security_invoker = true) AS
SELECT tenant_id, id, jsonb_build_object('id', id, 'name', name) AS data
FROM tb_label;
"""


# As `onboard` leaves them, copied from the tenant `:original`.
_HOMES = """
INSERT INTO homes SELECT copy.* FROM tenants t JOIN homes h ON h.id = t.home_id,
    unnest(CAST(:homes AS uuid[]), CAST(:schemas AS text[])) AS c (id, schema_name),
    jsonb_populate_record(h, jsonb_build_object('id', c.id, 'schema_name', c.schema_name,
                                                'role_name', 'none_' || c.schema_name)) AS copy
WHERE t.id = :original
"""
_TENANTS = """
INSERT INTO tenants SELECT copy.* FROM tenants t,
    unnest(CAST(:tenants AS uuid[]), CAST(:homes AS uuid[])) WITH ORDINALITY AS c (id, home_id, n),
    jsonb_populate_record(t, jsonb_build_object('id', c.id, 'home_id', c.home_id, 'slug', 'crowd-' || c.n)) AS copy
WHERE t.id = :original
"""
_BUILDERS = 2  # sessions


@dataclass(frozen=True)
class Sizes:
    few: int = 100
    many: int = 10_000
    onboarded: int = 100  # of the many; the others have no login role
    databases: int = 200
    rounds: int = 3
    readers: int = 2  # connections
    read: int = 50  # tenants
    seconds: float = 10.0  # of reading, with and without a run


QUICK = Sizes(few=2, many=4, onboarded=2, databases=1, rounds=1, readers=1, read=2, seconds=0.3)


def run(quick: bool) -> Report:
    """Fleets of schema homes in one database, then one of database homes."""
    sizes = QUICK if quick else Sizes()
    report = Report("fleet", quick, {**asdict(sizes), "template": TEMPLATE, "change": "1 column, 1 table, 2 views"})
    small = _seconds_per_home(report, "schema", sizes.few, sizes)
    with _fleet("schema", sizes.onboarded, crowd=sizes.many - sizes.onboarded) as (settings, stored):
        large = _rounds(report, f"{sizes.many:,} schema homes", sizes.many, settings, stored, sizes)
        _as_a_command(report, settings, stored)
        _beside_readers(report, settings, stored, sizes)
    report.ratios.insert(0, ratio(f"a home among {sizes.many:,}, against one among {sizes.few}", large, small, "≤ 1.3"))
    _seconds_per_home(report, "database", sizes.databases, sizes)
    return report


def _seconds_per_home(report: Report, isolation: str, homes: int, sizes: Sizes) -> Series:
    with _fleet(isolation, homes) as (settings, stored):
        return _rounds(report, f"{homes:,} {isolation} homes", homes, settings, stored, sizes)


@contextmanager
def _fleet(isolation: str, homes: int, crowd: int = 0) -> Iterator[tuple[Settings, Stored]]:
    """A stopped installation whose homes are one version behind."""
    with temporary_home() as home:
        settings = settings_for(home, templates=home.parent / "templates", template=TEMPLATE)
        copy_templates(settings)
        with EmbeddedServer(home, settings=PREPARING):
            _prepare(settings, lambda plane, _: onboard(plane, isolation, homes))
            _prepare(settings, lambda plane, cluster: _add_crowd(plane, cluster, crowd))
            asyncio.run(vacuum(settings))
            write_next_version(settings, _NEXT)
            asyncio.run(release_versions(settings))
        yield settings, Stored(home)


def _prepare(settings: Settings, work: Callable[[ControlPlane, Cluster], Awaitable[T]]) -> T:
    async def prepare() -> T:
        async with installation(settings) as (plane, cluster):
            return await work(plane, cluster)

    return asyncio.run(prepare())


async def _add_crowd(plane: ControlPlane, cluster: Cluster, count: int) -> None:
    """More schema tenants, by the message that onboarding sends but without login roles.

    The server gathers all memberships of the administrative role anew after each one that is added, and it is a member
    of every login role: ten thousand of them would take half an hour.
    """
    template = plane.templates[TEMPLATE]
    script = template.script(0, template.latest)
    ids = [(uuid4(), uuid4()) for _ in range(count)]
    waiting = list(enumerate(ids, 1))

    async def build() -> None:
        async with plane.databases.admin(cluster) as connection:
            while waiting:
                number, (tenant, home) = waiting.pop()
                call = f"'crowd-{number}', '{tenant}', '{home}', '{TEMPLATE}'"
                await connection.execute(
                    f"SELECT tenancy.create_tenant_schema({call});\n"
                    + script.message(home, schema_name(home), plane.settings.lock_timeout)
                )
                await connection.execute(
                    "SELECT tenancy.put_tenant($1, $2, $3, 'active', 1)", tenant, home, f"crowd-{number}"
                )

    async with asyncio.TaskGroup() as group:
        for _ in range(_BUILDERS):
            group.create_task(build())
    async with plane.databases.registry.begin() as session:
        given = {
            "original": await session.scalar(select(Tenant.id).limit(1)),
            "tenants": [tenant for tenant, _ in ids],
            "homes": [home for _, home in ids],
            "schemas": [schema_name(home) for _, home in ids],
        }
        await session.execute(text(_HOMES), given)
        await session.execute(text(_TENANTS), given)


def _rounds(report: Report, name: str, homes: int, settings: Settings, stored: Stored, sizes: Sizes) -> Series:
    per_home = Series(f"{name}, each", "ms")
    noop = Series(f"{name}, nothing to do", "s")
    queries = Ratio(f"{name}, nothing to do: the server's part", "s", goal="< 1" if homes == sizes.many else "")
    for _ in range(sizes.rounds):
        with stored.restored() as server:
            if not any(key.startswith("postgres.") for key in report.settings):
                report.settings.update(asyncio.run(server_settings(server.admin_dsn)))
            per_home.values.append(migrate_once(settings) / homes * 1000)
            before = asyncio.run(server_seconds(server.admin_dsn))
            noop.values.append(migrate_once(settings))
            queries.values.append(max(asyncio.run(server_seconds(server.admin_dsn)) - before, 1e-6))
    report.figures += [per_home, noop]
    report.ratios.append(queries)
    return per_home


def _as_a_command(report: Report, settings: Settings, stored: Stored) -> None:
    """What an operator's log and machine see of it."""
    command = [sys.executable, "-m", "control_plane", "migrate-all", "--template", TEMPLATE]
    with stored.restored():
        process = subprocess.Popen(
            command, env=_variables(settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError("\n".join(lines[-5:]))
    report.ratios += [
        Ratio("memory of the runner, at most", "MB", [usage.ru_maxrss / 1024], "< 150"),
        Ratio("lines in its log", "lines", [float(len(lines))], "< 200"),
    ]


def _beside_readers(report: Report, settings: Settings, stored: Stored, sizes: Sizes) -> None:
    """Some tenants read all the time, and the fleet, they too, is migrated meanwhile."""
    alone = Series("a tenant's read, p99, no run", "ms")
    beside = Series("a tenant's read, p99, during a run", "ms")
    for _ in range(sizes.rounds):
        with stored.restored(), service(settings.home, CP_TEMPLATES=str(settings.templates)) as serving:
            requests = _prepare(settings, lambda plane, _: _requests(plane, sizes.read))
            task = Task(
                ports=[serving.port],
                requests=requests,
                connections=sizes.readers,
                warmup=min(1.0, sizes.seconds),
                seconds=sizes.seconds,
            )
            alone.values.append(measure(task).p99)
            running = threading.Thread(target=_migrate_all, args=(settings,))
            running.start()
            beside.values.append(measure(task).p99)
            running.join()
    report.figures += [alone, beside]
    report.ratios.append(ratio("a tenant's read, p99: during a run, against no run", beside, alone))


def _migrate_all(settings: Settings) -> None:
    command = [sys.executable, "-m", "control_plane", "migrate-all", "--template", TEMPLATE]
    subprocess.run(command, env=_variables(settings), check=True, stdout=subprocess.DEVNULL)


async def _requests(plane: ControlPlane, count: int) -> list[str]:
    async with plane.databases.registry() as session:
        ids = list(await session.scalars(select(Tenant.id).where(~Tenant.slug.startswith("crowd")).limit(count)))
    return list(requests_for(plane.settings, ids, uuid4(), PATH))


def _variables(settings: Settings) -> dict[str, str]:
    return environment(settings.home, CP_TEMPLATES=str(settings.templates), CP_TEMPLATE=TEMPLATE)
