"""Pattern 24: views and projections beside the tables of a database that was there before us.

A legacy database is one application's, so there are no isolation modes to try.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from control_plane.adoption import applying, inspection, keeping, planning, records, suspension
from control_plane.adoption.building import Progress
from control_plane.adoption.planning import PlanRequest
from control_plane.adoption.records import AdoptionRecord
from control_plane.adoption.secrets import is_secret
from control_plane.adoption.work import Work
from control_plane.errors import AdoptionConflict, AdoptionNotFound, AdoptionRefused, InvalidInput
from control_plane.pools.databases import Databases
from control_plane.registry import adoptions
from control_plane.registry.models import Adoption
from tests.support.legacy import WIDE, Legacy, create_legacy
from tests.support.program import settings_environment
from tests.support.servers import Server

ACTOR = "tests"
CUSTOMER = UUID("ffbc4675-f864-e0e9-aab8-bdf7a0437010")  # number 1


@pytest_asyncio.fixture
async def legacy(server: Server, installation_id: UUID) -> Legacy:
    return await create_legacy(server, installation_id)


async def adopt(databases: Databases, legacy: Legacy, **request: Any) -> AdoptionRecord:
    await planning.plan(databases, PlanRequest("shop", legacy.dsn, **request), actor=ACTOR)
    return await applying.apply(databases, "shop", actor=ACTOR, chunk=7)


async def report(legacy: Legacy, table: str) -> inspection.TableReport:
    return (await inspection.inspect(legacy.dsn, "public", [table]))[0]


# Requirement 1: introspection


async def test_a_report_names_key_columns_rows_and_missing_indexes(legacy: Legacy) -> None:
    """Requirement 1: key candidates, types, row count, missing indexes of foreign keys."""
    customers, lines, orders = await inspection.inspect(legacy.dsn, "public", None)
    assert [(each.columns, each.origin, each.usable) for each in customers.key_candidates] == [
        (["id"], "primary key", True),
        (["email"], "unique index", True),
    ]
    assert customers.columns["balance"] == "numeric(12,2)"
    assert customers.columns["status"] == "public.status"
    assert (customers.rows, customers.rows_estimated) == (30, False)
    assert any("60 columns" in note for note in customers.notes)
    assert orders.missing_indexes == ['CREATE INDEX CONCURRENTLY ON "public"."orders" ("customer_id")']
    assert lines.key == ["order_id", "position"]
    assert lines.missing_indexes == []
    assert not any(each.problems for each in (customers, lines, orders))


async def test_a_row_count_says_whether_it_is_exact(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requirement 1: an estimate is called one."""
    await legacy.execute("ANALYZE")
    monkeypatch.setattr(inspection, "COUNTED", 40)
    assert ((await report(legacy, "customers")).rows_estimated, (await report(legacy, "orders")).rows_estimated) == (
        False,
        True,
    )
    assert (await report(legacy, "orders")).rows == 60
    exact = await inspection.inspect(legacy.dsn, "public", ["orders"], exact=True)
    assert not exact[0].rows_estimated


async def test_without_a_constraint_the_data_decides(databases: Databases, legacy: Legacy) -> None:
    """Requirement 1: else verified-unique NOT NULL columns."""
    await legacy.execute(
        "CREATE TABLE plain (code text NOT NULL, label text NOT NULL, maybe text);"
        "INSERT INTO plain SELECT 'c' || n, 'same', 'm' || n FROM generate_series(1, 20) AS n"
    )
    found = await report(legacy, "plain")
    assert found.key == ["code"]
    assert found.key_candidates[0].origin == "verified"
    reasons = {each.columns[0]: each.reason for each in found.key_candidates[1:]}
    assert reasons == {"label": "rows share a key: same (20 rows)", "maybe": "maybe may be NULL"}
    await adopt(databases, legacy, tables=["plain"])
    await legacy.execute("INSERT INTO plain VALUES ('c7', 'again', NULL)")
    with pytest.raises(AdoptionRefused, match=r"not unique any more: rows share a key: c7 \(2 rows\)"):
        await keeping.sync(databases, "shop")


async def test_duplicates_and_nulls_are_refused_with_a_sample(databases: Databases, legacy: Legacy) -> None:
    """Check 24.2: ids 1, 1, NULL."""
    await legacy.execute("CREATE TABLE existing (id integer, name text); INSERT INTO existing VALUES (1), (1), (NULL)")
    found = await report(legacy, "existing")
    candidate = next(each for each in found.key_candidates if each.columns == ["id"])
    assert (candidate.usable, candidate.nulls, candidate.duplicates) == (False, 1, [{"key": {"id": 1}, "rows": 2}])
    with pytest.raises(AdoptionRefused) as refused:
        await planning.plan(databases, PlanRequest("shop", legacy.dsn, tables=["existing"]), actor=ACTOR)
    assert refused.value.errors[0]["table"] == "public.existing"
    assert "id: rows share a key: 1 (2 rows) and 1 rows have NULL" in refused.value.errors[0]["problem"]
    with pytest.raises(AdoptionNotFound):
        await records.get_adoption(databases, "shop")


@pytest.mark.parametrize(
    ("table", "sql", "problem"),
    [
        ("heap", "CREATE TABLE heap (happened json)", "no usable key: no primary key"),
        ("blank", "CREATE TABLE blank (id integer NOT NULL)", "without rows nothing can be verified"),
        ("shown", "CREATE VIEW shown AS SELECT * FROM orders", "it is a view"),
        ("kept", "CREATE MATERIALIZED VIEW kept AS SELECT 1 AS id", "it is a materialised view"),
        ("none", "CREATE TABLE none ()", "it has no columns"),
        (
            "part_1",
            "CREATE TABLE part (id int PRIMARY KEY) PARTITION BY LIST (id);"
            "CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1)",
            "it is a partition",
        ),
        (
            "guarded",
            "CREATE TABLE guarded (id int PRIMARY KEY); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
            "row-level security",
        ),
        (
            "parent",
            "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);"
            "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1)",
            "rows share a key: 1 (2 rows)",
        ),
    ],
)
async def test_what_cannot_be_adopted_is_refused_with_the_reason(
    databases: Databases, legacy: Legacy, table: str, sql: str, problem: str
) -> None:
    """Requirement 1: unsupported cases."""
    await legacy.execute(sql)
    assert problem in " | ".join((await report(legacy, table)).problems)
    with pytest.raises(AdoptionRefused):
        await planning.plan(databases, PlanRequest("shop", legacy.dsn, tables=[table]), actor=ACTOR)


async def test_a_table_of_somebody_else_is_refused(legacy: Legacy) -> None:
    """Requirement 1: what cannot be read or granted on."""
    found = await inspection.inspect(legacy.orm_dsn, "public", ["orders"])
    assert any("cannot grant on it" in problem for problem in found[0].problems)


async def test_exotic_types_are_named(legacy: Legacy) -> None:
    """Requirement 1: types whose JSON is not what one would expect."""
    await legacy.execute(
        "CREATE TABLE odd (id int PRIMARY KEY, price money, words tsvector, raw json, during tstzrange, big oid)"
    )
    notes = " ".join((await report(legacy, "odd")).notes)
    assert all(f"{name} (" in notes for name in ("price", "words", "raw", "during", "big"))


@pytest.mark.parametrize(
    "column",
    [
        "password",
        "passwd",
        "password_hash",
        "userPassword",
        "token",
        "access_token",
        "api_key",
        "apiKey",
        "APIKey",
        "secret",
        "clientSecret",
        "hash",
        "salt",
        "ssn",
        "SSN",
        "pin",
        "otp_seed",
        "private_key",
        "credit_card_number",
        "cvv",
    ],
)
def test_a_name_that_suggests_a_secret_is_on_the_list(column: str) -> None:
    assert is_secret(column)


@pytest.mark.parametrize(
    "column", ["id", "email", "hashtag", "passenger_name", "shipping", "pinned", "salted_caramel", "key", "author"]
)
def test_other_names_are_not(column: str) -> None:
    assert not is_secret(column)


async def test_documents_that_hold_secrets_are_left_out(databases: Databases, legacy: Legacy) -> None:
    """Requirement 1: a jsonb column is looked into."""
    await legacy.execute('UPDATE customers SET settings = \'{"api_key": "k-123"}\' WHERE "order" = 3')
    assert (await report(legacy, "customers")).secret_columns == ["password_hash", "settings"]
    adoption = await adopt(databases, legacy, tables=["customers"])
    assert adoption.tables[0].withheld == ["settings", "password_hash"]
    await applying.uninstall(databases, "shop", actor=ACTOR)


async def test_the_view_shows_every_column_but_the_secret_ones(databases: Databases, legacy: Legacy) -> None:
    """Check 24.1: 60 columns, a uuid key, password_hash absent until confirmed."""
    columns = set((await report(legacy, "customers")).columns)
    assert len(columns) == 60
    await adopt(databases, legacy, tables=["customers"])
    async with legacy.owner() as connection:
        row = await connection.fetchrow("SELECT * FROM adoption.v_customers WHERE id = $1", CUSTOMER)
    assert row is not None
    document = json.loads(row["data"])
    assert set(document) == columns - {"password_hash"} | {"__typename"}
    assert list(row.keys()) == ["id", "email", "data"]
    assert (document["order"], document["email"], document["balance"]) == (1, "c1@example.com", 1.1)
    assert document["seen_at"] == "2026-01-01T11:00:00.25+00:00"
    assert document["avatar"] == "\\xc4ca4238a0b923820dcc509a6f75849b"
    assert document[WIDE[0]] == "field 1"
    assert 'Mixed "Case" \\ name' in document

    again = PlanRequest("shop", confirm=["customers.password_hash"])
    await planning.plan(databases, again, actor=ACTOR)
    adoption = await applying.apply(databases, "shop", actor=ACTOR)
    assert (adoption.tables[0].withheld, adoption.tables[0].confirmed) == ([], ["password_hash"])
    async with legacy.owner() as connection:
        shown = await connection.fetchval("SELECT data FROM adoption.tv_customers WHERE id = $1", CUSTOMER)
    assert json.loads(shown)["password_hash"] == "x"


async def test_times_read_the_same_in_every_session(databases: Databases, legacy: Legacy) -> None:
    await adopt(databases, legacy, tables=["customers"])
    query = "SELECT string_agg(data::text, '' ORDER BY id) FROM adoption.v_customers"
    async with legacy.owner() as connection:
        await connection.execute("UPDATE customers SET seen_at = 'infinity' WHERE \"order\" = 2")
        texts = set()
        for zone, output in (("UTC", "hex"), ("Asia/Tokyo", "escape")):
            await connection.execute(f"SET TimeZone = '{zone}'; SET bytea_output = '{output}'")
            texts.add(await connection.fetchval(query))
    assert len(texts) == 1


async def test_names_of_all_kinds_survive(databases: Databases, legacy: Legacy) -> None:
    """Requirement 1: reserved names, quotes, capitals, names that are too long for a prefix, our own column names."""
    long = "l" * 63
    await legacy.execute(
        'CREATE TABLE "select" ("group" int PRIMARY KEY, version int UNIQUE, "a\'b" text, "c""d" text, "E\\f" text);'
        f"CREATE TABLE {long} (data text PRIMARY KEY); CREATE TABLE {long[:-1]}m (data text PRIMARY KEY);"
        f"INSERT INTO \"select\" VALUES (1, 2, 'x', 'y', 'z'); INSERT INTO {long} VALUES ('here')"
    )
    adoption = await adopt(databases, legacy, tables=["select", long, long[:-1] + "m"])
    views = {each.table: each.view for each in adoption.tables}
    assert len(set(views.values())) == 3
    assert all(len(view) <= 63 for view in views.values())
    projection = next(each.projection for each in adoption.tables if each.table == f"public.{long}")
    async with legacy.owner() as connection:
        row = await connection.fetchrow("SELECT * FROM adoption.v_select")
        found = await connection.fetchrow(f"SELECT legacy_data, version FROM adoption.{projection}")
    assert row is not None
    assert found is not None
    assert dict(row) | {"data": json.loads(row["data"])} == {
        "group": 1,
        "legacy_version": 2,
        "data": {"__typename": "Select", "group": 1, "version": 2, "a'b": "x", 'c"d': "y", "E\\f": "z"},
    }
    assert tuple(found) == ("here", 1)
    assert [each.rows for each in await keeping.check(databases, "shop")] == [0, 0, 0]


async def test_a_secret_key_is_not_shown_by_accident(databases: Databases, legacy: Legacy) -> None:
    await legacy.execute("CREATE TABLE sessions (token text PRIMARY KEY, started date)")
    request = PlanRequest("shop", legacy.dsn, tables=["sessions"])
    with pytest.raises(AdoptionRefused, match=r"looks like a secret: sessions\.token"):
        await planning.plan(databases, request, actor=ACTOR)
    confirmed = dataclasses.replace(request, confirm=["sessions.token"])
    assert (await planning.plan(databases, confirmed, actor=ACTOR)).mappings[0].withheld == []


# Requirement 2: legacy objects are never altered


async def test_legacy_objects_stay_as_they_are(databases: Databases, legacy: Legacy) -> None:
    """Requirement 2 and check 24.3: the dump is the same during (but for grants) and after; adopting again works."""

    def objects() -> list[str]:
        """Without grants, and in an order that does not depend on what else is there."""
        return sorted(legacy.dump("--schema=public", "--no-acl").splitlines())

    before, without_grants = legacy.dump(), objects()
    for _ in range(2):
        await adopt(databases, legacy)
        await keeping.sync(databases, "shop")
        assert objects() == without_grants
        await applying.uninstall(databases, "shop", actor=ACTOR)
        assert legacy.dump() == before
    async with legacy.owner() as connection:
        query = "SELECT count(*) FROM pg_roles WHERE rolname ~ '_aw?_[0-9a-f]{12}$' AND starts_with(rolname, $1)"
        assert await connection.fetchval(query, legacy.orm_role.removesuffix("orm")) == 0, "no role is left"


async def test_the_adoption_s_role_can_only_read_what_is_shown(databases: Databases, legacy: Legacy) -> None:
    """Requirement 2: the adoption role has only SELECT."""
    adoption = await adopt(databases, legacy)
    async with legacy.owner() as connection:
        await connection.execute(f"SET ROLE {adoption.reader_role}")
        assert await connection.fetchval("SELECT count(id) FROM customers") == 30
        for statement in (
            "SELECT password_hash FROM customers",
            "INSERT INTO lines VALUES (1, 2)",
            "UPDATE customers SET email = 'x'",
            "DELETE FROM orders",
            "TRUNCATE lines",
            "CREATE TABLE public.mine (id int)",
            "SELECT nextval('orders_id_seq')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_views_read_with_the_rights_of_whoever_reads(
    databases: Databases, legacy: Legacy, installation_id: UUID
) -> None:
    adoption = await adopt(databases, legacy, readers=[legacy.orm_role])
    async with legacy.owner() as connection:
        options = await connection.fetch(
            "SELECT reloptions FROM pg_class WHERE relnamespace = 'adoption'::regnamespace AND relkind = 'v'"
        )
        assert [row["reloptions"] for row in options] == [["security_invoker=true"]] * 3
        assert not await connection.fetchval(
            "SELECT count(*) FROM pg_proc AS p CROSS JOIN aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a"
            " WHERE pronamespace = 'adoption'::regnamespace AND a.grantee = 0"
        ), "PUBLIC may call nothing"
        await connection.execute(f"REVOKE SELECT ON orders FROM {legacy.orm_role}")
    async with legacy.orm() as reader:
        assert await reader.fetchval("SELECT count(*) FROM adoption.tv_orders") == 60
        assert await reader.fetchval("SELECT count(*) FROM adoption.v_customers") == 30
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.fetchval("SELECT count(*) FROM adoption.v_orders")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute("UPDATE adoption.tv_orders SET version = 7")
    assert adoption.readers == [legacy.orm_role]


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE VIEW mine AS SELECT id FROM adoption.tv_orders",
        "SET ROLE {reader}; GRANT CREATE ON SCHEMA adoption TO PUBLIC; RESET ROLE; CREATE TABLE adoption.mine (id int)",
    ],
)
async def test_uninstall_takes_nothing_of_others_and_then_nothing_at_all(
    databases: Databases, legacy: Legacy, theirs: str
) -> None:
    """Requirement 2: exactly what was added."""
    adoption = await adopt(databases, legacy)
    await legacy.execute(theirs.format(reader=adoption.reader_role))
    with pytest.raises(AdoptionRefused, match=r"stands on|of others"):
        await applying.uninstall(databases, "shop", actor=ACTOR)
    async with legacy.owner() as connection:
        assert await connection.fetchval("SELECT count(*) FROM adoption.tv_orders") == 60
        kind = "TABLE adoption.mine" if "TABLE" in theirs else "VIEW mine"
        await connection.execute(f"DROP {kind}")
    await applying.uninstall(databases, "shop", actor=ACTOR)
    with pytest.raises(AdoptionNotFound):
        await applying.uninstall(databases, "shop", actor=ACTOR)


async def test_a_schema_of_somebody_else_is_left_alone(databases: Databases, legacy: Legacy) -> None:
    await legacy.execute("CREATE SCHEMA adoption")
    with pytest.raises(AdoptionRefused, match="belongs to"):
        await adopt(databases, legacy)
    await adopt(databases, legacy, into="beside")
    with pytest.raises(InvalidInput):
        await planning.plan(databases, PlanRequest("other", legacy.dsn, into="public"), actor=ACTOR)


async def test_the_connection_string_is_sealed_and_never_shown(databases: Databases, legacy: Legacy) -> None:
    planned = await planning.plan(databases, PlanRequest("shop", legacy.dsn), actor=ACTOR)
    password = legacy.dsn.partition("://")[2].partition("@")[0].partition(":")[2]
    assert password
    async with databases.registry() as session:
        adoption = await session.get(Adoption, (await _adoption_id(databases)))
        assert adoption is not None
        assert password.encode() not in adoption.dsn
        assert databases.box.open(adoption.dsn) == legacy.dsn
    shown = repr(await records.list_adoptions(databases)) + planned.sql + json.dumps(planned.document())
    assert password not in shown


async def _adoption_id(databases: Databases) -> UUID:
    async with databases.registry() as session:
        return (await adoptions.by_name(session, "shop")).id


# Requirement 3: proper projections, filled in chunks, kept by sync


async def test_a_projection_has_keys_versions_and_constraints(databases: Databases, legacy: Legacy) -> None:
    """Requirement 3: what CREATE TABLE AS would not bring."""
    await adopt(databases, legacy)
    async with legacy.owner() as connection:
        constraints = await connection.fetch(
            "SELECT conrelid::regclass::text AS t, pg_get_constraintdef(oid) AS d FROM pg_constraint"
            " WHERE connamespace = 'adoption'::regnamespace AND contype = 'p' ORDER BY 1"
        )
        assert [(row["t"].partition(".")[2], row["d"]) for row in constraints if "tv_" in row["t"]] == [
            ("tv_customers", "PRIMARY KEY (id)"),
            ("tv_lines", "PRIMARY KEY (order_id, \"position\")"),
            ("tv_orders", "PRIMARY KEY (id)"),
        ]  # fmt: skip
        columns = await connection.fetch(
            "SELECT attname, format_type(atttypid, atttypmod) AS type, attnotnull FROM pg_attribute"
            " WHERE attrelid = 'adoption.tv_orders'::regclass AND attnum > 0"
        )
        assert [tuple(row) for row in columns] == [
            ("id", "bigint", True),
            ("customer_id", "uuid", False),
            ("data", "jsonb", True),
            ("version", "bigint", True),
            ("synced_at", "timestamp with time zone", True),
        ]
        same = "SELECT count(*) FROM adoption.v_orders JOIN adoption.tv_orders USING (id, customer_id, data)"
        assert await connection.fetchval(same) == 60


async def test_sync_writes_only_what_differs(databases: Databases, legacy: Legacy) -> None:
    """Requirement 3: then kept by sync; lag and drift are visible."""
    await adopt(databases, legacy)
    assert [each.rows for each in await keeping.check(databases, "shop")] == [0, 0, 0]
    await legacy.execute(
        "UPDATE customers SET email = 'new' WHERE \"order\" = 1; DELETE FROM lines WHERE order_id IN (1, 60);"
        "INSERT INTO orders (customer_id, note) SELECT id, 'late' FROM customers WHERE \"order\" <= 3"
    )
    customers, lines, orders = await keeping.check(databases, "shop")
    assert (customers.stale, customers.samples) == (1, {"stale": [{"id": str(CUSTOMER)}]})
    assert (lines.extra, orders.missing) == (2, 3)
    assert orders.last_sync_at is not None
    walked = await keeping.sync(databases, "shop", chunk=7)
    assert [(each.rows, each.inserted, each.updated, each.deleted) for each in walked] == [
        (30, 0, 1, 0),
        (58, 0, 0, 2),
        (63, 3, 0, 0),
    ]
    assert [each.rows for each in await keeping.check(databases, "shop")] == [0, 0, 0]
    async with legacy.owner() as connection:
        versions = await connection.fetch("SELECT version, count(*) FROM adoption.tv_customers GROUP BY 1 ORDER BY 1")
        assert [tuple(row) for row in versions] == [(1, 29), (2, 1)]
        assert await connection.fetchval("SELECT email FROM adoption.tv_customers WHERE version = 2") == "new"
    again = await keeping.sync(databases, "shop", ["customers"])
    assert [(each.inserted, each.updated, each.deleted) for each in again] == [(0, 0, 0)]


async def test_drift_of_the_projection_itself_is_repaired(databases: Databases, legacy: Legacy) -> None:
    adoption = await adopt(databases, legacy, tables=["orders"])
    await legacy.execute(
        f"SET ROLE {adoption.reader_role}; DELETE FROM adoption.tv_orders WHERE id < 9;"
        "UPDATE adoption.tv_orders SET data = '{}' WHERE id = 20;"
        "INSERT INTO adoption.tv_orders (id, data) VALUES (1000, '{}'), (-5, '{}')"
    )
    (drift,) = await keeping.check(databases, "shop")
    assert (drift.missing, drift.stale, drift.extra) == (8, 1, 2)
    await keeping.sync(databases, "shop", chunk=5)
    assert (await keeping.check(databases, "shop"))[0].rows == 0


async def test_an_application_syncs_a_row_with_its_own_write(databases: Databases, legacy: Legacy) -> None:
    adoption = await adopt(databases, legacy, tables=["orders"])
    async with legacy.owner() as connection:
        async with connection.transaction():
            await connection.execute("UPDATE orders SET note = 'mine' WHERE id = 5")
            await connection.fetchval("SELECT adoption.sync_row('public.orders', '{\"id\": 5}')")
        assert await connection.fetchval("SELECT data ->> 'note' FROM adoption.tv_orders WHERE id = 5") == "mine"
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await connection.fetchval("SELECT adoption.sync_row('public.orders', '{}')")
        with pytest.raises(asyncpg.NoDataFoundError):
            await connection.fetchval("SELECT adoption.sync_row('public.nothing', '{\"id\": 5}')")
    assert adoption.state == "active"


async def test_a_walk_never_puts_an_old_row_over_a_newer_one(databases: Databases, legacy: Legacy) -> None:
    """Requirement 3 under concurrency: the walk waits for whoever syncs a row, and then reads what that one wrote."""
    await adopt(databases, legacy, tables=["orders"])
    async with legacy.owner() as writer, legacy.owner() as watch:
        for round_ in range(3):
            await watch.execute(f"UPDATE orders SET note = 'old {round_}' WHERE id = 5")
            transaction = writer.transaction()
            await transaction.start()
            await writer.execute(f"UPDATE orders SET note = 'new {round_}' WHERE id = 5")
            await writer.fetchval("SELECT adoption.sync_row('public.orders', '{\"id\": 5}')")
            walk = asyncio.create_task(keeping.sync(databases, "shop"))
            while not await watch.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'control-plane adopt'"
                " AND datname = current_database() AND wait_event_type = 'Lock'"
            ):
                assert not walk.done()
                await asyncio.sleep(0.01)
            await transaction.commit()
            await walk
            shown = await watch.fetchval("SELECT data ->> 'note' FROM adoption.tv_orders WHERE id = 5")
            assert shown == f"new {round_}"


async def test_a_killed_fill_goes_on_where_it_was(databases: Databases, legacy: Legacy) -> None:
    """Requirement 3: filled in chunks, resumable after kill -9."""
    await legacy.execute("INSERT INTO orders (customer_id) SELECT id FROM customers, generate_series(1, 100)")
    await planning.plan(databases, PlanRequest("shop", legacy.dsn, tables=["orders"]), actor=ACTOR)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "control_plane", "adopt", "apply", "shop", "--chunk", "5",
        env=settings_environment(databases.settings), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    while (await records.get_adoption(databases, "shop")).tables[0].rows < 50:
        assert process.returncode is None, await process.communicate()
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    killed = (await records.get_adoption(databases, "shop")).tables[0]
    assert (killed.state, killed.rows < 3060) == ("filling", True)
    assert killed.cursor is not None

    steps: list[Progress] = []
    while True:
        try:
            await applying.apply(databases, "shop", actor=ACTOR, chunk=500, listener=steps.append)
            break
        except AdoptionConflict:  # the server has not noticed yet that the other one is gone
            await asyncio.sleep(0.01)
    assert steps[0].rows == killed.rows + 500, "it did not start anew"
    assert (await keeping.check(databases, "shop"))[0].rows == 0
    async with legacy.owner() as connection:
        assert await connection.fetchval("SELECT max(version) FROM adoption.tv_orders") == 1, "no row was written twice"


async def test_every_step_may_be_repeated_after_a_crash(
    databases: Databases, legacy: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Intent is recorded first: whichever record is the last one, the same command finishes the work."""
    record = Work.record
    left = 0

    async def crash(self: Work, row: Any, **values: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("crash")
        await record(self, row, **values)

    before = legacy.dump()
    await planning.plan(databases, PlanRequest("shop", legacy.dsn, tables=["orders"]), actor=ACTOR)
    monkeypatch.setattr(Work, "record", crash)
    crashes = 0
    for verb in (
        lambda: applying.apply(databases, "shop", actor=ACTOR, chunk=25),
        lambda: suspension.suspend(databases, "shop", "orders", actor=ACTOR),
        lambda: suspension.resume(databases, "shop", "orders", actor=ACTOR, chunk=25),
        lambda: applying.uninstall(databases, "shop", actor=ACTOR),
    ):
        step = 0
        while True:
            left = step
            try:
                await verb()
                break
            except RuntimeError:
                crashes, step = crashes + 1, step + 1
    assert crashes >= 8
    assert legacy.dump() == before


async def test_two_commands_at_once_do_not_meet(databases: Databases, legacy: Legacy) -> None:
    await adopt(databases, legacy)
    outcomes = await asyncio.gather(
        *(keeping.sync(databases, "shop", chunk=1) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(outcome, AdoptionConflict) for outcome in outcomes) == 2


# Requirement 4: legacy migrations


async def test_preflight_lists_what_stands_on_a_table(databases: Databases, legacy: Legacy) -> None:
    """Requirement 4: a pre-flight lists dependent views, ours and others'."""
    await adopt(databases, legacy)
    await legacy.execute(
        "CREATE VIEW notes AS SELECT note FROM orders; CREATE MATERIALIZED VIEW notes_kept AS SELECT * FROM notes;"
        "CREATE FUNCTION last_order() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT max(id) FROM orders; END"
    )
    found = await suspension.preflight(databases, "shop", "orders")
    assert {(each.name, each.kind, each.depth, each.suspended) for each in found} == {
        ("adoption.v_orders", "view", 1, True),
        ("public.notes", "view", 1, False),
        ("public.notes_kept", "materialized view", 2, False),
        ("public.last_order()", "function", 1, False),
    }
    columns = {each.name: each.columns for each in found}
    assert columns["public.notes"] == ["note"]
    assert columns["public.notes_kept"] == []


async def test_suspending_lets_a_legacy_migration_run(databases: Databases, legacy: Legacy) -> None:
    """Requirement 4: suspend drops the dependent views, resume recreates them for what the table has become."""
    await adopt(databases, legacy)
    migration = (
        "ALTER TABLE customers DROP COLUMN field_01; ALTER TABLE customers RENAME field_02 TO renamed;"
        "ALTER TABLE customers ADD COLUMN points integer NOT NULL DEFAULT 7, ADD COLUMN reset_token text;"
        "ALTER TABLE customers ALTER COLUMN email TYPE varchar(100)"
    )
    with pytest.raises(asyncpg.DependentObjectsStillExistError):
        await legacy.execute(migration)
    assert await suspension.suspend(databases, "shop", "customers", actor=ACTOR) == []
    (drift, *_) = await keeping.check(databases, "shop")
    assert drift.state == "suspended"
    assert [each.table for each in await keeping.sync(databases, "shop")] == ["public.lines", "public.orders"]
    await legacy.execute(migration)
    async with legacy.owner() as connection:
        assert await connection.fetchval("SELECT count(*) FROM adoption.tv_customers") == 30, "still readable"
        key = json.dumps({"id": str(CUSTOMER)})
        synced = await connection.fetchval("SELECT adoption.sync_row('public.customers', $1)", key)
        assert synced is None, "an application that syncs its own writes is not stopped"
    assert await suspension.resume(databases, "shop", "customers", actor=ACTOR) == ["password_hash", "reset_token"]
    async with legacy.owner() as connection:
        document = json.loads(
            await connection.fetchval("SELECT data FROM adoption.tv_customers WHERE id = $1", CUSTOMER)
        )
    assert document["points"] == 7
    assert "renamed" in document
    assert not {"field_01", "field_02", "reset_token"} & set(document)
    assert [each.rows for each in await keeping.check(databases, "shop")] == [0, 0, 0]


async def test_suspend_does_not_drop_what_others_built_on_our_view(databases: Databases, legacy: Legacy) -> None:
    await adopt(databases, legacy)
    await legacy.execute("CREATE VIEW mine AS SELECT id FROM adoption.v_orders")
    with pytest.raises(AdoptionRefused, match="stands on"):
        await suspension.suspend(databases, "shop", "orders", actor=ACTOR)
    assert [each.state for each in (await records.get_adoption(databases, "shop")).tables] == ["active"] * 3
    await legacy.execute("DROP VIEW mine")


async def test_resume_refuses_a_table_that_has_lost_its_key(databases: Databases, legacy: Legacy) -> None:
    await adopt(databases, legacy)
    await suspension.suspend(databases, "shop", "lines", actor=ACTOR)
    await legacy.execute("ALTER TABLE lines DROP CONSTRAINT lines_pkey; INSERT INTO lines SELECT * FROM lines LIMIT 1")
    with pytest.raises(AdoptionRefused) as refused:
        await suspension.resume(databases, "shop", "lines", actor=ACTOR)
    assert "rows share a key: 1, 1 (2 rows)" in refused.value.errors[0]["problem"]


async def test_a_plan_that_time_has_overtaken_is_not_applied(databases: Databases, legacy: Legacy) -> None:
    await planning.plan(databases, PlanRequest("shop", legacy.dsn), actor=ACTOR)
    await legacy.execute("ALTER TABLE orders ADD COLUMN total numeric")
    with pytest.raises(AdoptionConflict, match=r"public\.orders has changed"):
        await applying.apply(databases, "shop", actor=ACTOR)
