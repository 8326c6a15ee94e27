"""Pattern 6, row-level security: tenants in common tables. Attacks on it are in test_isolation.py, its audit's in
test_posture.py; here each requirement is shown once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from control_plane.pools.connect import connect
from tests.conformance.conftest import Ground
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.test_context import count, sqlstate_of
from tests.conformance.world import World, bind

DENIED = "42501"


async def test_every_table_is_led_by_its_tenant(world: World) -> None:
    """Requirement 1: tenant_id NOT NULL leads each key, each foreign key is composite, and the table is protected."""
    async with world.admin(world.a) as connection:
        tables = await connection.fetch(
            """
            SELECT c.oid::regclass::text AS name, c.relrowsecurity AND c.relforcerowsecurity AS secured, a.attnotnull,
                   (SELECT bool_and(k.conkey[1] = a.attnum) FROM pg_constraint k
                    WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f', 'x')) AS keys_led,
                   (SELECT bool_and(i.indkey[0] = a.attnum) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                    JOIN pg_am m ON m.oid = x.relam WHERE i.indrelid = c.oid AND m.amname = 'btree') AS indexes_led,
                   (SELECT bool_and(p.polqual IS NOT NULL AND p.polwithcheck IS NOT NULL) FROM pg_policy p
                    WHERE p.polrelid = c.oid AND NOT p.polpermissive) AS explicit,
                   (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c'
                    AND pg_get_constraintdef(k.oid) ~ '^CHECK .*tenant_id = ''[0-9a-f-]{36}''::uuid') AS pinned
            FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $1
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
            WHERE c.relkind IN ('r', 'p')
            """,
            world.a.schema,
        )
        everything = await connection.fetchval(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')",
            world.a.schema,
        )
    assert len(tables) == everything >= 3
    for table in tables:
        assert all(table[fact] for fact in ("attnotnull", "keys_led", "indexes_led")), table["name"]
        if world.mode == "shared":
            assert all(table[fact] for fact in ("secured", "explicit")), table["name"]
        else:
            assert table["pinned"] == 1, table["name"]


async def test_a_planted_reference_and_an_unknown_one_fail_alike(shared_world: World) -> None:
    """Requirement 1: a foreign key does not tell whether another tenant's row exists."""
    insert = "INSERT INTO tb_project_member (project_id, user_id) VALUES ($1, $2)"
    async with shared_world.within(shared_world.a) as connection:
        told = []
        for project in (shared_world.b.projects[0], uuid4()):
            with pytest.raises(asyncpg.ForeignKeyViolationError) as raised:
                async with connection.transaction():
                    await connection.execute(insert, project, shared_world.a.users[0])
            told.append(str(raised.value).replace(str(project), ""))
        assert told[0] == told[1]


async def test_no_context_means_no_rows(shared_world: World) -> None:
    """Requirement 2: without a context 0 rows are read and writes are refused; the same with an empty one."""
    world = shared_world
    async with world.request(world.a) as connection:
        for setting in (None, ""):
            if setting is not None:
                await connection.execute("SET app.current_tenant_id = ''")
            assert await count(connection) == 0
            insert = "INSERT INTO tb_project (tenant_id, name) VALUES ($1, 'x')"
            assert await sqlstate_of(connection, insert, world.a.id) == DENIED
        unknown = uuid4()
        await connection.execute(f"SET app.current_tenant_id = '{unknown}'")
        assert await count(connection) == 0


async def test_the_owner_of_the_tables_is_no_way_around(shared_world: World) -> None:
    """Requirements 1 and 2: FORCE holds for the owner too; cp_owner passes by a policy of its own, not as the owner."""
    world = shared_world
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert await count(connection) == 8
        await connection.execute("DROP POLICY owner_access ON tb_project")
        assert await count(connection) == 0
        await connection.execute("SELECT set_config('app.current_tenant_id', $1, true)", str(world.a.id))
        assert await count(connection) == 0
        await transaction.rollback()


async def test_writes_for_another_tenant_are_refused(shared_world: World) -> None:
    """Requirement 2: WITH CHECK refuses a foreign tenant_id, USING hides foreign rows, TRUNCATE is not granted."""
    world = shared_world
    async with world.within(world.a) as connection:
        insert = "INSERT INTO tb_project (tenant_id, name) VALUES ($1, 'x')"
        assert await sqlstate_of(connection, insert, world.b.id) == DENIED
        assert await sqlstate_of(connection, "UPDATE tb_project SET tenant_id = $1", world.b.id) == DENIED
        gone = await connection.execute("DELETE FROM tb_project WHERE id = $1", world.b.projects[0])
        assert gone == "DELETE 0"
        assert await sqlstate_of(connection, "TRUNCATE tb_project") == DENIED


@asynccontextmanager
async def supporter(ground: Ground, world: World, *roles: str) -> AsyncIterator[asyncpg.Connection]:
    """A person's login role that is a member of cp_support, connected to the tenants' database."""
    name = f"helper_{uuid4().hex[:12]}"
    async with world.admin(world.a) as admin:
        await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'of the tests' IN ROLE cp_support ROLE CURRENT_USER")
    try:
        connection = await connect(
            world.dsn, application_name="support", database=world.a.home.database, user=name, password="of the tests"
        )
        try:
            await connection.execute(f'SET search_path = "{world.a.schema}"')
            yield connection
        finally:
            await connection.close()
    finally:
        async with world.admin(world.a) as admin:
            await admin.execute(f"DROP ROLE {name}")


async def test_support_reads_across_tenants_and_leaves_a_trace(ground: Ground, shared_world: World) -> None:
    """Requirement 3: another role with another policy, read-only, and every use is on record."""
    world = shared_world
    async with supporter(ground, world) as connection:
        assert await count(connection) == 0
        reason = "ticket 4711: totals differ"
        async with connection.transaction():
            await connection.execute("SELECT tenancy.open_support_session($1)", reason)
            assert await count(connection) == 0  # nothing is seen that a rollback could leave without a trace
        seen = await connection.fetch("SELECT tenant_id FROM tb_project")
        assert {row["tenant_id"] for row in seen} == {world.a.id, world.b.id}
        for write in ("UPDATE tb_project SET name = 'x'", "DELETE FROM tb_project", "TRUNCATE tb_project"):
            assert await sqlstate_of(connection, write) == DENIED
        assert await sqlstate_of(connection, "SELECT * FROM tenancy.tenants") == DENIED
        role = await connection.fetchval("SELECT session_user::text")
    async with world.admin(world.a) as admin:
        log = await admin.fetch("SELECT reason FROM tenancy.support_sessions WHERE role_name = $1", role)
    assert [row["reason"] for row in log] == [reason]


@pytest.mark.parametrize("reason", ["", "short", "       x        ", None])
async def test_support_without_a_reason_is_refused(ground: Ground, shared_world: World, reason: str | None) -> None:
    """Requirement 3: no session without a reason, and none that lasts for ever."""
    async with supporter(ground, shared_world) as connection:
        assert await sqlstate_of(connection, "SELECT tenancy.open_support_session($1)", reason) == "22023"
        lasting = "SELECT tenancy.open_support_session('a good reason', '2 hours')"
        assert await sqlstate_of(connection, lasting) == "22023"
        assert await count(connection) == 0


async def test_a_support_session_ends_and_belongs_to_one_login(ground: Ground, shared_world: World) -> None:
    """Requirement 3: neither an expired session nor somebody else's opens anything."""
    world = shared_world
    async with supporter(ground, world) as first, supporter(ground, world) as second:
        await first.execute("SELECT tenancy.open_support_session('looking into a report')")
        assert await count(first) > 0
        session = await first.fetchval("SELECT current_setting('app.support_session')")
        await second.execute("SELECT set_config('app.support_session', $1, false)", session)
        assert await count(second) == 0
        async with world.admin(world.a) as admin:
            await admin.execute("UPDATE tenancy.support_sessions SET expires_at = now() WHERE id::text = $1", session)
        assert await count(first) == 0


async def test_requests_know_nothing_of_support(world: World) -> None:
    """Requirement 3: the plan of a request has no OR, and a request role cannot open a session."""
    async with world.within(world.a) as connection:
        open_session = "SELECT tenancy.open_support_session('let me in please')"
        assert await sqlstate_of(connection, open_session) == DENIED
        assert await sqlstate_of(connection, "SET ROLE cp_support") == DENIED
        plan = await explain(connection, "SELECT count(*) FROM tb_project")
        assert "support" not in str(plan)
    if world.mode != "shared":  # there is no relation with more than one tenant's rows to support
        async with world.admin(world.a) as connection:
            usage = "SELECT has_schema_privilege('cp_support', $1, 'USAGE')"
            assert not await connection.fetchval(usage, world.a.schema)


async def test_the_registry_of_tenants_is_closed_to_requests(world: World) -> None:
    """Requirement 4: not even the own row; what a request needs of it set_tenant_context has checked."""
    async with world.within(world.a) as connection:
        for table in ("tenants", "homes", "home_roles", "members", "manifests", "support_sessions"):
            assert await sqlstate_of(connection, f"SELECT * FROM tenancy.{table}") == DENIED, table


async def test_an_upgrade_touches_the_rows_of_all_tenants(world: World) -> None:
    """Requirement 5: a backfill as cp_owner is not silently empty, and its count can be asserted."""
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        everybody = await connection.fetchval("SELECT count(*) FROM tb_project")
        assert everybody == (8 if world.mode == "shared" else 3)
        assert await connection.execute("UPDATE tb_project SET description = 'x'") == f"UPDATE {everybody}"
        await transaction.rollback()


async def test_a_table_whose_backfills_would_be_empty_is_found(shared_world: World) -> None:
    """Requirements 5 and 6: the audit misses the owner's policy."""
    world = shared_world
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DROP POLICY owner_access ON tb_project")
        await connection.execute("SET LOCAL ROLE cp_tenancy")
        faults = await connection.fetch("SELECT code, object FROM tenancy.isolation_faults($1)", world.a.home.id)
        await transaction.rollback()
    assert [(row["code"], row["object"].rpartition(".")[2]) for row in faults] == [("protection", "tb_project")]


@pytest.mark.parametrize(
    ("breakage", "code"),
    [
        ("CREATE TABLE tb_x (tenant_id uuid NOT NULL, id uuid, PRIMARY KEY (tenant_id, id))", "protection"),
        ("CREATE POLICY open ON tb_project FOR SELECT TO cp_definer, cp_support USING (true)", "protection"),
        ("CREATE POLICY open ON tb_project FOR SELECT TO cp_support USING (true)", "protection"),
        ("GRANT TRUNCATE ON tb_project TO cp_definer", "grant"),
        ("CREATE UNIQUE INDEX u ON tb_project (id)", "index"),
        ("CREATE MATERIALIZED VIEW mv AS SELECT tenant_id FROM tb_project", "kind"),
    ],
)
async def test_the_audit_names_what_is_wrong(shared_world: World, breakage: str, code: str) -> None:
    """Requirements 6 and 7: no stamp over an unprotected table, an open policy, a wide grant or a materialized view."""
    world = shared_world
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(breakage)
        await connection.execute("SET LOCAL ROLE cp_tenancy")
        faults = await connection.fetch("SELECT code FROM tenancy.isolation_faults($1)", world.a.home.id)
        await transaction.rollback()
    assert code in {row["code"] for row in faults}


async def test_a_count_among_five_hundred_tenants_is_an_index_scan(ground: Ground) -> None:
    """Check 6.4: 301,000 rows, 500 tenants: an Index Cond on tenant_id, no OR, no Seq Scan."""
    world = await ground.world("shared")
    async with world.owner(world.a) as connection:
        insert = "INSERT INTO tb_project (tenant_id, name) SELECT "
        await connection.execute(insert + "md5((n % 500)::text)::uuid, 'filler' FROM generate_series(1, 300400) AS n")
        await connection.execute(insert + "$1, 'own' FROM generate_series(1, 600)", world.a.id)
        await connection.execute("ANALYZE tb_project")
    async with world.request(world.a) as connection, connection.transaction():
        await bind(connection, world.a, read_only=True)
        plan = await explain(connection, "SELECT count(*) FROM tb_project")
        assert_indexed(plan, "tb_project", "tenant_id = ")
        assert " OR " not in str(plan)
        assert plan.rows_read("tb_project") == 603
    async with world.admin(world.a) as connection:  # 300,000 rows are of no use to the tests that come after
        await connection.execute("SELECT tenancy.drop_home($1)", world.a.home.id)
