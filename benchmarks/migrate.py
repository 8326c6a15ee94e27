"""`migrate-all` over a fleet of schema homes, against psql and pgbench sessions that send the same messages.

And against what a team writes first: a loop of Alembic over the schemas, with the same change. How far from that one
can get at all is what pgbench shows with nothing but the change.

Every run begins from the same bytes: the data directory is copied back, because a catalogue that has been through one
run is larger and slower for the next.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from benchmarks.figures import Ratio, Report, Series, interleaved, ratio
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
from benchmarks.rivals.alembic_loop.__main__ import Work
from benchmarks.stage import dsn_with, environment, installation, onboard, server_settings, settings_for, temporary_home
from control_plane.embedded import EmbeddedServer
from control_plane.embedded.binaries import binary
from control_plane.pools.connect import connect
from control_plane.settings import Settings
from control_plane.templates import Templates

OURS, NOOP = "migrate-all", "migrate-all with nothing to do"
ALEMBIC, ALEMBIC_NOOP = "a loop of Alembic", "a loop of Alembic with nothing to do"
BARE = "pgbench, 2 sessions, nothing but the change"
SESSIONS = (("psql", 4), ("pgbench", 2), ("pgbench", 4))  # those that were fastest among 1, 2 and 4 sessions of each

# The version table of each schema, with the revision at which the fleet stands; outside of the homes.
_ALEMBIC = """
CREATE SCHEMA alembic;
GRANT USAGE, CREATE ON SCHEMA alembic TO cp_owner;
DO $$
DECLARE
    home name;
BEGIN
    FOR home IN SELECT schema_name FROM tenancy.homes LOOP
        EXECUTE format('CREATE TABLE alembic.%I (version_num varchar(32) PRIMARY KEY)', home);
        EXECUTE format('INSERT INTO alembic.%I VALUES (''0001'')', home);
        EXECUTE format('ALTER TABLE alembic.%I OWNER TO cp_owner', home);
    END LOOP;
END
$$;
"""

# One column, one table, two views: one new, one replaced.
_NEXT = f"""
ALTER TABLE tb_project ADD COLUMN archived_at timestamptz;

{LABELS}
CREATE OR REPLACE VIEW v_user_card WITH (security_invoker = true) AS
SELECT tenant_id, id, jsonb_build_object('__typename', 'UserCard', 'id', id, 'name', name, 'email', email) AS data
FROM tb_user;
"""


@dataclass(frozen=True)
class Sizes:
    homes: int = 1_000
    rounds: int = 3


QUICK = Sizes(homes=4, rounds=1)  # one per session at least


@dataclass(frozen=True)
class Fleet:
    """A stopped installation whose homes are one version behind.

    `messages` bring each of them forward; `changes` are of these nothing but the change.
    """

    settings: Settings
    stored: Stored
    database: str
    messages: list[str]
    changes: list[str]
    schemas: list[str]
    target: int
    server: dict[str, str]


def run(quick: bool) -> Report:
    """Rounds of all contestants; then what `migrate-all` costs when there is nothing to do."""
    sizes = QUICK if quick else Sizes()
    with temporary_home() as home:
        fleet = _prepare(home, sizes)
        recorded = {"isolation": "schema", "change": "1 column, 1 table, 2 views", "wal": "as shipped, fsync on"}
        concurrency = {"concurrency": fleet.settings.migrate_concurrency}
        report = Report("migrate", quick, {**asdict(sizes), **concurrency, **recorded, **fleet.server})
        _race(report, fleet, sizes)
        _time_noop(report, fleet, sizes)
    return report


def _prepare(home: Path, sizes: Sizes) -> Fleet:
    settings = settings_for(home, templates=home.parent / "templates")
    copy_templates(settings)
    with EmbeddedServer(home, settings=PREPARING):
        asyncio.run(_onboard(settings, sizes.homes))
        asyncio.run(vacuum(settings))
    write_next_version(settings, _NEXT)
    with EmbeddedServer(home) as shipped_server:
        asyncio.run(release_versions(settings))
        database, homes = asyncio.run(_homes(settings))
        recorded = asyncio.run(server_settings(shipped_server.admin_dsn))
    template = Templates.load(settings.templates)[settings.template]
    script = template.script(template.latest - 1, template.latest)
    messages = [script.message(id_, schema, settings.lock_timeout) for id_, schema in homes]
    schemas = [schema for _, schema in homes]
    changes = [
        f"SET LOCAL ROLE cp_owner; SET LOCAL search_path = {schema}, extensions, pg_temp; {_NEXT}" for schema in schemas
    ]
    return Fleet(settings, Stored(home), database, messages, changes, schemas, template.latest, recorded)


async def _onboard(settings: Settings, homes: int) -> None:
    async with installation(settings) as (plane, cluster):
        await onboard(plane, "schema", homes)
        async with plane.databases.admin(cluster) as connection:
            await connection.execute(_ALEMBIC)


async def _homes(settings: Settings) -> tuple[str, list[tuple[UUID, str]]]:
    async with installation(settings) as (plane, cluster), plane.databases.admin(cluster) as connection:
        rows = await connection.fetch("SELECT id, schema_name FROM tenancy.homes ORDER BY schema_name")
        return cluster.database, [(row["id"], row["schema_name"]) for row in rows]


def _race(report: Report, fleet: Fleet, sizes: Sizes) -> None:
    sessions = {f"{program}, {count} sessions": (program, count) for program, count in SESSIONS}
    names = [OURS, *sessions, BARE, ALEMBIC]
    speed = {name: Series(name, "homes/s") for name in names}
    start_ups = Series("a session of psql or pgbench: start-up, subtracted", "s")
    for order in interleaved(names, sizes.rounds):
        for name in order:
            with fleet.stored.restored() as server:
                dsn = dsn_with(server.admin_dsn, database=fleet.database)
                if name == OURS:
                    seconds = migrate_once(fleet.settings)
                elif name == ALEMBIC:
                    seconds = _alembic(dsn, fleet)
                else:
                    program, count = sessions.get(name, ("pgbench", 2))
                    messages = fleet.changes if name == BARE else fleet.messages
                    start_up = min(_sessions(program, dsn, [["SELECT 1"]] * count) for _ in range(3))
                    seconds = _sessions(program, dsn, [messages[i::count] for i in range(count)])
                    seconds = max(seconds - start_up, 0.001)  # start-ups vary by more than a handful of homes takes
                    start_ups.values.append(start_up)
                asyncio.run(_require_done(dsn, fleet, stamped=name not in (ALEMBIC, BARE)))
            speed[name].values.append(len(fleet.messages) / seconds)
    best = max((speed[name] for name in sessions), key=lambda series: series.median)
    report.figures += [*speed.values(), start_ups]
    report.ratios += [
        ratio(f"migrate-all / {best.name}, the best of those with the same messages", speed[OURS], best, "≥ 0.8"),
        ratio(f"migrate-all / {ALEMBIC}", speed[OURS], speed[ALEMBIC], "≥ 15"),
        ratio(f"{BARE} / {ALEMBIC}", speed[BARE], speed[ALEMBIC]),
        ratio(f"migrate-all / {BARE}", speed[OURS], speed[BARE]),
    ]


def _alembic(dsn: str, fleet: Fleet) -> float:
    work = Work(url=dsn.replace("postgresql://", "postgresql+psycopg://"), schemas=fleet.schemas, sql=_NEXT)
    command = [sys.executable, "-m", "benchmarks.rivals.alembic_loop"]
    done = subprocess.run(command, input=work.model_dump_json(), stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def _sessions(program: str, dsn: str, parts: list[list[str]]) -> float:
    """Seconds from the start of the first process to the end of the last; one session per part."""
    commands = [_psql(dsn, part) if program == "psql" else _pgbench(dsn, part) for part in parts]
    began = time.perf_counter()
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for command, _ in commands
    ]
    for process, (_, text) in zip(processes, commands, strict=True):
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
    for process in processes:
        if process.wait() != 0:
            assert process.stderr is not None
            raise RuntimeError(f"{program}: {process.stderr.read()}")
    seconds = time.perf_counter() - began
    for process in processes:
        assert process.stderr is not None
        process.stderr.close()
    return seconds


def _psql(dsn: str, messages: list[str]) -> tuple[list[str], str]:
    """Combined into one message each, as the control plane sends them: one transaction, one round trip."""
    options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]
    return [str(binary("psql")), *options, dsn], _combined(messages)


def _pgbench(dsn: str, messages: list[str]) -> tuple[list[str], str]:
    options = ["--no-vacuum", "--client=1", "--transactions=1", "--file=/dev/stdin"]
    return [str(binary("pgbench")), *options, dsn], _combined(messages)


def _combined(messages: list[str]) -> str:
    r"""Both programs send everything up to an unescaped semicolon as one query; `\;` stands for one within it.

    That holds for messages whose literals have none, as this change's.
    """
    return "".join(message.strip().rstrip(";").replace(";", "\\;") + ";\n" for message in messages)


async def _require_done(dsn: str, fleet: Fleet, *, stamped: bool) -> None:
    """The table that is new stands in each home; our own messages have also stamped it."""
    connection = await connect(dsn, application_name="benchmark")
    try:
        done = await connection.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'tb_label'")
        if stamped:
            at_target = "SELECT count(*) FROM tenancy.homes WHERE version = $1"
            done = min(done, await connection.fetchval(at_target, fleet.target))
    finally:
        await connection.close()
    if done != len(fleet.messages):
        raise AssertionError(f"{done} of {len(fleet.messages)} homes are at version {fleet.target}")


def _time_noop(report: Report, fleet: Fleet, sizes: Sizes) -> None:
    """The engine alone, what of it the server works, and the command as its user waits for it."""
    engine, server_time = Ratio(NOOP, "s", goal="< 0.5"), Series(f"{NOOP}: the server's part", "s")
    command, start_up = Series("the command with nothing to do", "s"), Series("start-up of a command", "s")
    program = [sys.executable, "-m", "control_plane"]
    variables = environment(fleet.settings.home, CP_TEMPLATES=str(fleet.settings.templates))
    loop = Series(ALEMBIC_NOOP, "s")
    with fleet.stored.restored() as server:
        migrate_once(fleet.settings)
        for _ in range(sizes.rounds):
            before = asyncio.run(server_seconds(server.admin_dsn))
            engine.values.append(migrate_once(fleet.settings))
            server_time.values.append(asyncio.run(server_seconds(server.admin_dsn)) - before)
            start_up.values.append(_wait_for([*program, "cluster", "list"], variables))
            command.values.append(_wait_for([*program, "migrate-all"], variables))
    with fleet.stored.restored() as server:
        dsn = dsn_with(server.admin_dsn, database=fleet.database)
        _alembic(dsn, fleet)
        loop.values = [_alembic(dsn, fleet) for _ in range(sizes.rounds)]
    report.figures += [server_time, command, start_up, loop]
    report.ratios.append(engine)


def _wait_for(command: list[str], variables: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
