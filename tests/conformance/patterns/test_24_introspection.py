"""Pattern 24, requirement 1: what is found in a database that was there before us, and what of it is shown."""

from __future__ import annotations

import dataclasses
import json

import pytest

from control_plane.adoption import applying, inspection, keeping, planning, records
from control_plane.adoption.planning import PlanRequest
from control_plane.adoption.secrets import is_secret
from control_plane.errors import AdoptionNotFound, AdoptionRefused
from control_plane.pools.databases import Databases
from tests.conformance.patterns.adoptions import ACTOR, CUSTOMER, adopt, report
from tests.support.legacy import WIDE, Legacy


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
