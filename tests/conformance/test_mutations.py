"""Break a guard and the suite must go red: each mutation names the test that sees it.

A suite that stays green over a missing policy has proved nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from tests.conformance import test_context, test_fencing, test_isolation
from tests.conformance.conftest import Ground
from tests.conformance.world import World

Check = Callable[[World], Awaitable[None]]


async def replace_in_function(world: World, signature: str, old: str, new: str) -> None:
    async with world.admin(world.a) as connection:
        definition = await connection.fetchval("SELECT pg_get_functiondef($1::text::regprocedure)", signature)
        assert old in definition, f"{signature} no longer contains {old!r}: the mutation would change nothing"
        await connection.execute("SET ROLE cp_tenancy")
        await connection.execute(definition.replace(old, new))


async def as_owner(world: World, statement: str) -> None:
    async with world.owner(world.a) as connection:
        await connection.execute(statement)


GATE = "tenancy.set_tenant_context(uuid,uuid,bigint,boolean,text[])"


async def suspended_takes_effect(world: World) -> None:
    await test_context.test_a_state_takes_effect_at_once(world, "suspended")


async def generic_plans_follow(world: World) -> None:
    await test_isolation.test_a_prepared_statement_follows_the_context(world, "force_generic_plan")


SQL_MUTATIONS: dict[str, tuple[str, Check]] = {
    "the restrictive policy is dropped": (
        "DROP POLICY tenant_only ON tb_project",
        test_isolation.test_no_relation_shows_anything_of_another_tenant,
    ),
    "the policy does not check what is written": (
        "ALTER POLICY tenant_only ON tb_project WITH CHECK (true)",
        test_isolation.test_a_row_cannot_be_planted_in_or_moved_to_another_tenant,
    ),
    "row-level security is off": (
        "ALTER TABLE tb_project DISABLE ROW LEVEL SECURITY",
        test_isolation.test_without_a_context_nothing_is_read_and_nothing_is_written,
    ),
    "a view runs with the rights of its owner": (
        "ALTER VIEW v_project RESET (security_invoker)",
        test_isolation.test_no_relation_shows_anything_of_another_tenant,
    ),
    "a unique key is not led by tenant_id": (
        "CREATE UNIQUE INDEX oracle ON tb_user (email)",
        test_isolation.test_a_unique_value_of_another_tenant_is_free,
    ),
    "row-level security does not stand before an upsert": (
        "ALTER TABLE tb_project DISABLE ROW LEVEL SECURITY",
        test_isolation.test_on_conflict_neither_reads_nor_changes_another_tenants_row,
    ),
    "a reference goes by the id alone": (
        """
        ALTER TABLE tb_project DROP CONSTRAINT tb_project_tenant_id_owner_id_fkey;
        CREATE UNIQUE INDEX alone ON tb_user (id);
        ALTER TABLE tb_project ADD FOREIGN KEY (owner_id) REFERENCES tb_user (id)
        """,
        test_isolation.test_a_foreign_key_does_not_tell_whether_another_tenants_row_exists,
    ),
    "ids are counted": (
        "ALTER TABLE tb_project ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY",
        test_isolation.test_no_sequence_tells_of_another_tenants_inserts,
    ),
    "hidden rows are shown to filters": (
        "ALTER TABLE tb_project DISABLE ROW LEVEL SECURITY",
        test_isolation.test_hidden_rows_are_not_evaluated_by_a_leaky_filter,
    ),
    "no policy applies when it is switched off": (
        "ALTER TABLE tb_project DISABLE ROW LEVEL SECURITY",
        test_isolation.test_row_security_cannot_be_switched_off,
    ),
    "statistics are shown where no policy hides them": (
        "ALTER TABLE tb_project DISABLE ROW LEVEL SECURITY",
        test_isolation.test_statistics_of_shared_tables_are_hidden,
    ),
    "the policy's index is gone": (
        "ALTER POLICY tenant_only ON tb_project USING (tenant_id::text = tenancy.current_tenant_id()::text)",
        test_isolation.test_the_policy_uses_the_index,
    ),
}

FUNCTION_MUTATIONS: dict[str, tuple[str, str, str, Check]] = {
    "the gate ignores the state": (GATE, "found_state = 'suspended'", "false", suspended_takes_effect),
    "the gate ignores the epoch": (
        GATE,
        "found_epoch <> epoch",
        "false",
        test_context.test_an_old_epoch_is_told_from_a_current_one,
    ),
    "the gate answers false instead of raising": (
        GATE,
        "RAISE EXCEPTION 'no such tenant here' USING ERRCODE = 'TN404';",
        "RETURN false;",
        test_context.test_an_unknown_tenant_is_not_here,
    ),
    "the gate takes no lock": (
        GATE,
        "PERFORM pg_advisory_xact_lock_shared(tenancy.tenant_lock(tenant));",
        "",
        test_fencing.test_a_fence_waits_for_a_writer_that_began_before,
    ),
    "the gate lets a read write": (
        GATE,
        "PERFORM set_config('transaction_read_only', 'on', true);",
        "",
        test_context.test_a_read_only_context_writes_nothing,
    ),
    "the context outlives its transaction": (
        GATE,
        "set_config('app.current_tenant_id', tenant::text, true)",
        "set_config('app.current_tenant_id', tenant::text, false)",
        lambda world: test_context.test_nothing_of_the_context_outlives_its_transaction(world, "commit"),
    ),
    "a transaction may change its tenant": (
        GATE,
        "current_setting('app.context_mark', true) = transaction_mark",
        "false",
        test_context.test_a_transaction_serves_one_tenant_only,
    ),
    "the reader of the setting is immutable": (
        "tenancy.current_tenant_id()",
        "STABLE",
        "IMMUTABLE",
        generic_plans_follow,
    ),
    "an empty setting is not null": (
        "tenancy.current_tenant_id()",
        "NULLIF(current_setting('app.current_tenant_id'::text, true), ''::text)",
        "current_setting('app.current_tenant_id'::text, true)",
        test_isolation.test_an_empty_setting_means_no_tenant,
    ),
}

RED = (AssertionError, asyncpg.PostgresError, pytest.fail.Exception)


@pytest.mark.parametrize("mutation", SQL_MUTATIONS)
async def test_a_broken_table_or_view_turns_the_suite_red(ground: Ground, mutation: str) -> None:
    statement, check = SQL_MUTATIONS[mutation]
    world = await ground.world("shared")
    await check(world)
    await as_owner(world, statement)
    with pytest.raises(RED):
        await check(world)


@pytest.mark.parametrize("mutation", FUNCTION_MUTATIONS)
async def test_a_broken_gate_turns_the_suite_red(ground: Ground, mutation: str) -> None:
    signature, old, new, check = FUNCTION_MUTATIONS[mutation]
    world = await ground.world("shared")
    await check(world)
    await replace_in_function(world, signature, old, new)
    with pytest.raises(RED):
        await check(world)


@pytest.mark.parametrize("dedicated", ["schema", "database"])
async def test_a_gate_without_the_check_of_the_login_turns_the_suite_red(ground: Ground, dedicated: str) -> None:
    world = await ground.world(dedicated)
    check = test_context.test_a_principal_of_one_home_is_refused_over_the_login_of_another
    await check(world)
    # In a database home there is no tenant but the own one: the gate refuses the other for that alone.
    await replace_in_function(world, GATE, "AND r.role_name = session_user", "")
    if dedicated == "schema":
        with pytest.raises(RED):
            await check(world)
    else:
        await check(world)


async def test_a_partition_that_requests_may_read_is_noticed(ground_partition: World) -> None:
    """Attack 24: `a partition has a grant of its own`."""
    role = ground_partition.a.home.role_name
    await as_owner(ground_partition, f'GRANT SELECT ON tb_event_0 TO "{role}"')
    try:
        with pytest.raises(RED):
            await test_isolation.test_a_partition_has_no_grants_of_its_own(ground_partition)
    finally:
        await as_owner(ground_partition, f'REVOKE SELECT ON tb_event_0 FROM "{role}"')


async def test_a_login_role_with_another_path_is_noticed(ground: Ground) -> None:
    """Attack 33: `a login role begins in another schema`."""
    world = await ground.world("schema")
    await test_isolation.test_a_login_role_reaches_its_own_home_only(world)
    async with world.admin(world.a) as connection:
        await connection.execute(
            f'ALTER ROLE "{world.a.home.role_name}" IN DATABASE "{world.a.home.database}" SET search_path = pg_catalog'
        )
    with pytest.raises(RED):
        await test_isolation.test_a_login_role_reaches_its_own_home_only(world)
