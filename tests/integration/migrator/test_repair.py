"""`cp migrate repair` brings homes back in every mode, loses no row, and leaves what it may not touch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import select

from control_plane.errors import BadRequest, HomeNotFound, TenantNotFound
from control_plane.migrator import repair as module
from control_plane.migrator.comparison import compare
from control_plane.migrator.repair import HomeRepair, Repair, repair
from control_plane.registry.models import AuditEvent, Home
from control_plane.templates import Template
from tests.integration.migrator.runs import MODES, holding
from tests.support.drift import LEFT, drift, drifts, one_of_each, told
from tests.support.fleet import Fleet
from tests.support.templates import write_sample

ROWS = """
SELECT set_config('app.current_tenant_id', (SELECT id::text FROM tenancy.tenants WHERE home_id = '{home}'), false);
SET ROLE cp_owner;
INSERT INTO {s}.tb_thing (name, number) VALUES ('one', 7);
INSERT INTO {s}.tb_part (thing_id, weight) SELECT id, 1 FROM {s}.tb_thing;
RESET ROLE;
"""
WIDER = """
CREATE OR REPLACE VIEW {s}.v_thing AS SELECT tenant_id, id, '{{}}'::jsonb AS data, 1 AS more FROM {s}.tb_thing
"""


@pytest.fixture
def template(tmp_path: Path) -> Template:
    return one_of_each(tmp_path / "sample-templates")


async def repaired(fleet: Fleet, *, apply: bool = True, **chosen: Any) -> Repair:
    return await repair(fleet.databases, {"sample": fleet.template}, apply=apply, actor="tests", **chosen)


async def only(fleet: Fleet, *, apply: bool = True) -> HomeRepair:
    """The one home that differs."""
    (home,) = (await repaired(fleet, apply=apply)).homes
    return home


async def differences(fleet: Fleet) -> dict[UUID, Sequence[Any]]:
    comparison = await compare(fleet.databases, {"sample": fleet.template})
    return {each.home.home_id: each.differences for each in comparison.differing}


async def count(fleet: Fleet, home: Home, table: str) -> int:
    async with fleet.admin(home) as connection:
        await connection.execute("SET ROLE cp_owner")
        found: int = await connection.fetchval(f'SELECT count(*) FROM "{home.schema_name}".{table}')
        return found


@pytest.mark.parametrize("mode", MODES)
async def test_a_home_is_brought_back_from_all_that_was_done_to_it(fleet: Fleet, mode: str) -> None:
    home = await fleet.add("acme", mode, version=2)
    await drift(fleet, home, ROWS, *drifts(mode))

    planned = await only(fleet, apply=False)
    assert planned.status == "planned"
    assert told((await differences(fleet))[home.id]) == set().union(*drifts(mode).values()), "a plan changes nothing"

    done = await only(fleet)
    assert (done.status, done.error) == ("repaired", None)
    assert done.statements == planned.statements
    assert told(each.difference for each in done.left) == LEFT
    left = (await differences(fleet))[home.id]
    assert told(left) == LEFT
    assert (await count(fleet, home, "tb_thing"), await count(fleet, home, "tb_part")) == (1, 1)


@pytest.mark.parametrize("mode", MODES)
async def test_a_home_of_which_nothing_is_left_is_built_anew(fleet: Fleet, mode: str) -> None:
    """What needs what decides about the order."""
    home = await fleet.add("acme", mode, version=2)
    await drift(fleet, home, *(f"DROP SCHEMA {{s}}{api} CASCADE" for api in ("__api", "__api_v1", "")))
    done = await only(fleet)
    assert (done.status, done.error) == ("repaired", None)
    assert [str(each) for each in done.left] == ["the sequence ticket is missing: its last value is not known"]
    assert told((await differences(fleet))[home.id]) == {("sequence", "ticket", "missing", None)}


async def test_what_is_repaired_is_audited_and_done_once(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=2)
    await fleet.add("twin", version=2)
    await drift(fleet, home, "DROP INDEX {s}.tb_thing_by_name")
    result = await repaired(fleet)
    assert result.settled
    assert [each.home.slug for each in result.homes] == ["acme"]
    async with fleet.databases.registry() as session:
        (event,) = await session.scalars(select(AuditEvent))
    assert (event.actor, event.action) == ("tests", "home.repair")
    assert event.details == {
        "home": str(home.id),
        "template": "sample",
        "version": 2,
        "differences": ["the index tb_thing_by_name is missing"],
    }
    again = await repaired(fleet)
    assert (again.homes, again.settled, again.comparison.compared) == ((), True, 2)


async def test_only_the_named_home_is_repaired(fleet: Fleet) -> None:
    homes = {slug: await fleet.add(slug, version=2) for slug in ("acme", "other", "third")}
    shared = await fleet.add("common", "shared", version=2)
    for home in (*homes.values(), shared):
        await drift(fleet, home, "DROP INDEX {s}.tb_thing_by_name")
    await repaired(fleet, tenant="acme")
    await repaired(fleet, home=homes["other"].id)
    assert (await differences(fleet)).keys() == {homes["third"].id, shared.id}
    with pytest.raises(BadRequest) as refused:
        await repaired(fleet, tenant="common")
    assert refused.value.hint == f"Repair it for all of them: --home {shared.id}"
    with pytest.raises(TenantNotFound):
        await repaired(fleet, tenant="nobody")
    with pytest.raises(HomeNotFound):
        await repaired(fleet, home=uuid4())


async def test_a_column_that_takes_no_null_is_not_put_back_under_rows(fleet: Fleet) -> None:
    """And what needs it is left, too; in a table without rows nothing is in the way."""
    drop = "ALTER TABLE {s}.tb_part DROP COLUMN weight", "DROP INDEX {s}.tb_thing_by_name"
    await drift(fleet, await fleet.add("empty", version=2), *drop)
    await drift(fleet, await fleet.add("full", version=2), ROWS, *drop)
    found = {each.home.slug: each for each in (await repaired(fleet)).homes}
    assert [each.status for each in found.values()] == ["repaired", "repaired"]
    assert found["empty"].left == ()
    assert {each.difference.object: each.reason for each in found["full"].left} == {
        "tb_part.weight": "it is NOT NULL without a default, and the table has rows",
        "tb_part_by_weight": "it needs the column tb_part.weight, which is left",
        "tb_part.tb_part_weight": "it needs the column tb_part.weight, which is left",
    }


async def test_a_column_of_another_type_is_reported_with_what_needs_it(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=2)
    await drift(
        fleet,
        home,
        "DROP STATISTICS {s}.st_thing; DROP VIEW {s}.v_thing CASCADE",
        "ALTER TABLE {s}.tb_thing DROP CONSTRAINT tb_thing_name, DROP COLUMN doubled",
        "ALTER TABLE {s}.tb_thing ALTER COLUMN name TYPE varchar(10)",
        "DROP INDEX {s}.tb_thing_by_label",
    )
    done = await only(fleet)
    assert (done.status, done.error) == ("repaired", None)
    reasons = {each.difference.object: each.reason for each in done.left}
    assert reasons["tb_thing.name"] == "all rows would be written anew, and values may not fit"
    assert reasons["tb_thing.tb_thing_name"] == "it needs the column tb_thing.name, which is left"
    assert reasons["api.things"] == "it needs the view api_v1.things, which is left"
    assert "tb_thing_by_label" not in reasons
    assert "tb_thing_by_label" not in {each.object for each in (await differences(fleet))[home.id]}


async def test_what_cannot_be_replaced_is_made_anew_with_all_that_needs_it(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=2)
    await drift(
        fleet,
        home,
        "DROP VIEW {s}.v_note CASCADE; CREATE VIEW {s}.v_note AS SELECT id, tenant_id FROM {s}.tb_note",
        WIDER,
        "DROP FUNCTION {s}.fn_count CASCADE; CREATE FUNCTION {s}.fn_count() RETURNS integer RETURN 1",
        "CREATE FUNCTION {s}__api_v1.count_things(input jsonb) RETURNS jsonb RETURN to_jsonb({s}.fn_count())",
        "ALTER TABLE {s}.tb_part DROP CONSTRAINT tb_part_thing; ALTER TABLE {s}.tb_thing DROP CONSTRAINT tb_thing_pkey",
        "ALTER TABLE {s}.tb_thing ADD CONSTRAINT tb_thing_pkey PRIMARY KEY (id, tenant_id)",
        "ALTER TABLE {s}.tb_part ADD CONSTRAINT tb_part_thing FOREIGN KEY (tenant_id, thing_id) "
        "REFERENCES {s}.tb_thing (tenant_id, id) ON DELETE CASCADE",
    )
    done = await only(fleet)
    assert (done.status, done.error, done.left) == ("repaired", None, ())
    assert await differences(fleet) == {}


async def test_an_index_that_was_left_invalid_is_built_anew(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=2)
    await drift(
        fleet, home, ROWS, "DROP INDEX {s}.tb_thing_by_label", "ALTER TABLE {s}.tb_thing ALTER label SET DEFAULT 'x'"
    )
    await drift(fleet, home, ROWS, ROWS)
    build = "CREATE UNIQUE INDEX CONCURRENTLY tb_thing_by_label ON {s}.tb_thing (tenant_id, label)"
    with pytest.raises(asyncpg.UniqueViolationError):
        await drift(fleet, home, build)
    assert ("index", "tb_thing_by_label", "different", "valid") in told((await differences(fleet))[home.id])
    await drift(fleet, home, "SET ROLE cp_owner; UPDATE {s}.tb_thing SET label = NULL")
    assert (await only(fleet)).status == "repaired"
    assert await differences(fleet) == {}


async def test_what_the_template_does_not_know_keeps_what_it_needs(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=2)
    await drift(
        fleet,
        home,
        WIDER,
        "CREATE VIEW {s}.v_mine AS SELECT more FROM {s}.v_thing",
        "DROP INDEX {s}.tb_thing_by_name",
    )
    done = await only(fleet)
    assert (done.status, done.error) == ("repaired", None)
    reasons = {(each.difference.object, each.difference.aspect): each.reason for each in done.left}
    assert reasons["v_thing", "columns"] == "the view v_mine needs it"
    assert reasons["v_mine", None] == "nothing that may hold data is dropped"
    assert ("tb_thing_by_name", None) not in reasons


async def test_what_is_only_printed_in_another_way_is_no_difference(fleet: Fleet) -> None:
    """A condition with BETWEEN is printed with parentheses that are gone when what was printed is read."""
    homes = [await fleet.add(f"acme-{number}", version=2) for number in range(3)]
    for home in homes[1:]:
        await drift(fleet, home, "ALTER TABLE {s}.tb_part DROP CONSTRAINT tb_part_weight")
    assert (await repaired(fleet)).settled
    comparison = await compare(fleet.databases, {"sample": fleet.template})
    assert (comparison.compared, comparison.differing) == (3, [])
    async with fleet.admin() as connection:
        texts = await connection.fetch(
            "SELECT DISTINCT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'tb_part_weight'"
        )
    assert len(texts) == 2


async def test_rows_that_do_not_fit_undo_all_of_it(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=2)
    await drift(
        fleet,
        home,
        ROWS,
        "DROP INDEX {s}.tb_thing_by_name; ALTER TABLE {s}.tb_thing DROP CONSTRAINT tb_thing_name",
        "SET ROLE cp_owner; UPDATE {s}.tb_thing SET name = repeat('x', 2000)",
    )
    before = await differences(fleet)
    failed = await only(fleet)
    assert (failed.status, failed.sqlstate) == ("failed", "23514")
    assert failed.error is not None
    assert "at: ALTER TABLE" in failed.error
    assert await differences(fleet) == before


async def test_a_repair_that_would_not_hold_is_undone(fleet: Fleet) -> None:
    """Nobody foresees everything: here a default privilege of the database, which the check at the end sees."""
    home = await fleet.add("acme", version=2)
    await drift(fleet, home, "DROP INDEX {s}.tb_thing_by_name", "DROP FUNCTION {s}.fn_moods")
    async with fleet.admin() as connection:
        await connection.execute("ALTER DEFAULT PRIVILEGES FOR ROLE cp_owner GRANT EXECUTE ON FUNCTIONS TO cp_support")
    failed = await only(fleet)
    assert failed.status == "failed"
    assert failed.error == (
        "afterwards it would still differ: the function fn_moods(<home>.mood, <home>.mood, <home>.mood): "
        "grants to cp_support is EXECUTE, not nothing"
    )
    assert len((await differences(fleet))[home.id]) == 2


async def test_a_function_is_nobody_s_even_where_the_database_gives_it_to_all(fleet: Fleet) -> None:
    home = await fleet.add("acme", version=2)
    await drift(fleet, home, "DROP FUNCTION {s}.fn_moods")
    async with fleet.admin() as connection:
        await connection.execute("ALTER DEFAULT PRIVILEGES FOR ROLE cp_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC")
    assert (await repaired(fleet)).settled


async def test_a_home_is_not_repaired_while_it_is_migrated(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "patience", lambda attempt: 0.0)
    home = await fleet.add("acme", version=2)
    await drift(fleet, home, "DROP INDEX {s}.tb_thing_by_name")
    async with holding(fleet, home, "SELECT pg_advisory_xact_lock(hashtextextended('tenancy.home:{home}', 0))"):
        failed = await only(fleet)
    assert (failed.status, failed.sqlstate, failed.error) == ("failed", "55P03", "a migration holds the home")
    assert (await repaired(fleet)).settled


async def test_a_table_that_is_in_use_is_waited_for_as_long_as_a_migration_would(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = await fleet.add("acme", version=2)
    await drift(fleet, home, "ALTER TABLE {s}.tb_thing ALTER COLUMN name SET DEFAULT 'x'")
    held = asyncio.Event()

    def let_go(attempt: int) -> float:
        held.set()
        return 0.0

    monkeypatch.setattr(module, "patience", let_go)
    running = None
    async with holding(fleet, home, 'LOCK TABLE "{schema}".tb_thing IN ACCESS SHARE MODE'):
        running = asyncio.create_task(repaired(fleet))
        await held.wait()
    assert (await running).settled


PARTITIONED = """
CREATE TYPE pair AS (a integer, b text);
CREATE TABLE tb_log (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id bigserial,
    at date NOT NULL,
    pair pair,
    PRIMARY KEY (tenant_id, id, at)
) PARTITION BY RANGE (at);
CREATE TABLE tb_log_2026 PARTITION OF tb_log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX tb_log_at ON tb_log (tenant_id, at);
SELECT tenancy.protect_table('tb_log');
CREATE FUNCTION fn_look() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER look AFTER INSERT ON tb_log FOR EACH ROW EXECUTE FUNCTION fn_look();
CREATE VIEW v_thing WITH (security_invoker = true) AS SELECT tenant_id, id FROM tb_log;
CREATE RULE ignore AS ON INSERT TO v_thing DO INSTEAD NOTHING;
"""


@pytest.mark.parametrize(
    "done",
    [
        "DROP TABLE {s}.tb_log_2026; DROP TYPE {s}.pair CASCADE; DROP RULE ignore ON {s}.v_thing",
        "DROP SCHEMA {s}__api CASCADE; DROP SCHEMA {s}__api_v1 CASCADE; DROP SCHEMA {s} CASCADE",
    ],
    ids=["parts", "all"],
)
async def test_partitions_come_back_with_what_they_have_from_their_table(
    fleet: Fleet, tmp_path: Path, done: str
) -> None:
    api = "CREATE VIEW things WITH (security_invoker = true) AS SELECT tenant_id, id FROM v_thing;"
    fleet.template = write_sample(tmp_path / "partitioned", {"expand.sql": PARTITIONED, "api_v1.sql": api})
    home = await fleet.add("acme", "shared")
    assert await differences(fleet) == {}
    await drift(fleet, home, done)
    found = await only(fleet)
    assert (found.status, found.error, found.left) == ("repaired", None, ())
    assert await differences(fleet) == {}
