"""The gated statement on a real PostgreSQL. Attack numbers are those of the isolation checklist."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from control_plane.api.query import plain_listing
from control_plane.pools import gate, lists
from control_plane.pools.connect import connect
from control_plane.pools.listing import Listing
from control_plane.pools.requests import RequestPools
from tests.support.members import Member, Members

MODES = ("shared", "schema", "database")


def listing(members: Members, limit: int = 100, offset: int = 0) -> Listing:
    """Without cursors, since those begin at a place and not at an offset."""
    plain = plain_listing(members.template.resource("projects", api_version=1, pattern_version=members.template.latest))
    return plain._replace(shape=plain.shape._replace(cursors=False), limit=limit, offset=offset)


async def names(members: Members, connection: asyncpg.Connection, member: Member, **page: int) -> list[str]:
    read = await lists.read_list(
        connection, member.caller, member.home.schema_name, 1, "projects", listing(members, **page)
    )
    documents = json.loads(read.body or b"")
    assert (read.rows, read.total) == (len(documents), None)
    return [document["name"] for document in documents]


async def create(connection: asyncpg.Connection, member: Member, name: str) -> dict[str, Any]:
    result = await gate.call_function(
        connection, member.caller, member.home.schema_name, 1, "create_project", json.dumps({"name": name})
    )
    assert result.success
    project: dict[str, Any] = json.loads(result.body)["data"]["project"]
    return project


@pytest.mark.parametrize("mode", MODES)
async def test_list_keeps_the_order_of_the_template_across_pages(
    members: Members, pools: RequestPools, mode: str
) -> None:
    member = await members.add("acme", mode)
    async with pools.connection(member.placement) as connection:
        assert await names(members, connection, member) == []
        for number in range(9):
            await create(connection, member, f"p{number}")
        assert await names(members, connection, member) == [f"p{number}" for number in range(9)]
        assert await names(members, connection, member, limit=3, offset=6) == ["p6", "p7", "p8"]


async def test_one_document_is_read_by_its_owner_and_absent_for_others(members: Members, pools: RequestPools) -> None:
    # attack 11
    acme, other = await members.add("acme"), await members.add("other")
    async with pools.connection(acme.placement) as connection:
        project = await create(connection, acme, "ours")
        statement = (acme.home.schema_name, 1, "projects")
        found = await gate.read_one(connection, acme.caller, *statement, project["id"])
        assert found is not None
        assert found.body is not None
        assert json.loads(found.body)["name"] == "ours"
        assert await gate.read_one(connection, other.caller, *statement, project["id"]) is None
        assert await gate.read_one(connection, acme.caller, *statement, uuid4()) is None


async def test_one_call_of_a_volatile_function_inserts_one_row(members: Members, pools: RequestPools) -> None:
    member = await members.add("acme")
    async with pools.connection(member.placement) as connection:
        for number in range(1, 8):  # past the fifth execution PostgreSQL may take a generic plan
            await create(connection, member, f"p{number}")
            assert len(await names(members, connection, member)) == number


@pytest.mark.parametrize("kind", ["list", "one", "deprecations"])
async def test_reads_are_a_result_over_an_init_plan_behind_the_gate(
    members: Members, pools: RequestPools, kind: str
) -> None:
    # attack 21: a scan at the top, beside the gate, or below a CTE would run before it
    member = await members.add("acme")
    schema = member.home.schema_name
    asked: dict[str, tuple[str, tuple[Any, ...]]] = {
        "list": (lists.list_statement(schema, 1, "projects", listing(members).shape), (10, 0)),
        "one": (gate.one_statement(schema, 1, "projects"), (uuid4(),)),
        "deprecations": (gate.DEPRECATIONS, (1,)),
    }
    statement, extra = asked[kind]
    async with pools.connection(member.placement) as connection:
        for mode in ("force_custom_plan", "force_generic_plan"):
            async with connection.transaction():
                await connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
                explained = await connection.fetchval(
                    f"EXPLAIN (FORMAT JSON, VERBOSE) {statement}", *member.caller, *extra
                )
                plan = json.loads(explained)[0]["Plan"]
                assert plan["Node Type"] == "Result"
                assert {child["Parent Relationship"] for child in plan["Plans"]} == {"InitPlan"}
                (output,) = plan["Output"]
                assert output.startswith("CASE WHEN tenancy.set_tenant_context(")
                # the whole answer hangs on the gate: THEN the init plan, and nothing after END
                assert output.count("CASE") == 1
                assert output.endswith(" END")


async def test_list_aggregates_a_sorted_page(members: Members, pools: RequestPools) -> None:
    member = await members.add("acme")
    statement = lists.list_statement(member.home.schema_name, 1, "projects", listing(members).shape)
    async with pools.connection(member.placement) as connection:
        explained = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *member.caller, 10, 0)
    (aggregate,) = [plan for plan in json.loads(explained)[0]["Plan"]["Plans"] if plan["Node Type"] == "Aggregate"]
    nodes = []
    node = aggregate
    while "Plans" in node:
        node = next(child for child in node["Plans"] if child["Parent Relationship"] in ("Outer", "Subquery"))
        nodes.append(node["Node Type"])
        if node["Node Type"] == "Limit":
            break
    assert nodes in (["Limit"], ["Subquery Scan", "Limit"])


async def test_a_call_evaluates_its_function_once_below_the_columns(members: Members, pools: RequestPools) -> None:
    member = await members.add("acme")
    statement = gate.call_statement(member.home.schema_name, 1, "create_project")
    async with pools.connection(member.placement) as connection:
        explained = await connection.fetchval(f"EXPLAIN (FORMAT JSON, VERBOSE) {statement}", *member.caller, "{}")
    plan = json.loads(explained)[0]["Plan"]
    assert plan["Node Type"] == "Subquery Scan"
    assert "create_project" not in " ".join(plan["Output"])
    (inner,) = plan["Plans"]
    assert inner["Node Type"] == "Result"
    (output,) = inner["Output"]
    assert output.count("create_project") == 1
    assert output.startswith("CASE WHEN tenancy.set_tenant_context(")


async def test_a_poisoned_session_setting_does_not_reach_the_next_request(
    members: Members, pools: RequestPools
) -> None:
    # attacks 20, 21: B's id stays in the session, A asks; custom and generic plans
    acme, other = await members.add("acme"), await members.add("other")
    async with pools.connection(acme.placement) as connection:
        await create(connection, acme, "acme's")
        await create(connection, other, "other's")
        for mode in ("auto", "force_generic_plan", "force_custom_plan"):
            await connection.execute(f"SET plan_cache_mode = {mode}")
            for _ in range(8):
                await connection.execute("SELECT set_config('app.current_tenant_id', $1, false)", str(other.id))
                assert await names(members, connection, acme) == ["acme's"]
                assert await names(members, connection, other) == ["other's"]


async def test_a_gate_built_as_a_cte_would_leak(members: Members, pools: RequestPools) -> None:
    """Attack 21: `the gate as a CTE reads first`. So the test above can fail, and this is why the gate is a CASE."""
    acme, other = await members.add("acme"), await members.add("other")
    async with pools.connection(acme.placement) as connection:
        await create(connection, other, "other's")
        await connection.execute("SELECT set_config('app.current_tenant_id', $1, false)", str(other.id))
        leaked = await connection.fetch(
            f"WITH gate AS MATERIALIZED (SELECT tenancy.set_tenant_context($1, $2, $3, true, $4))"
            f' SELECT data FROM "{acme.home.schema_name}__api_v1".projects',
            *acme.caller,
        )
        assert len(leaked) == 1
        await connection.execute("RESET app.current_tenant_id")


async def test_no_context_survives_a_statement_even_a_failed_one(members: Members, pools: RequestPools) -> None:
    # attacks 9, 10, 36
    member = await members.add("acme")
    setting = "SELECT coalesce(current_setting('app.current_tenant_id', true), '')"
    async with pools.connection(member.placement) as connection:
        await create(connection, member, "ours")
        assert await connection.fetchval(setting) == ""
        with pytest.raises(asyncpg.PostgresError):
            await gate.call_function(connection, member.caller, member.home.schema_name, 1, "create_project", "{nope")
        with pytest.raises(asyncpg.PostgresError):
            await lists.read_list(
                connection, member.caller, member.home.schema_name, 1, "projects", listing(members, limit=-1)
            )
        assert await connection.fetchval(setting) == ""
        assert not connection.is_in_transaction()
        assert await connection.fetch(f'SELECT data FROM "{member.home.schema_name}__api_v1".projects') == []


@pytest.mark.parametrize(
    ("caller", "state", "sqlstate"),
    [
        ({"tenant_id": None}, "active", "TN400"),
        ({"user_id": None}, "active", "TN400"),
        ({"tenant_id": uuid4()}, "active", "TN404"),
        ({"epoch": 99}, "active", "TN409"),
        ({}, "suspended", "TN403"),
        ({}, "deleting", "TN404"),
        ({}, "moving", "TN503"),
        ({}, "provisioning", "TN503"),
    ],
)
async def test_the_gate_raises_and_never_answers_nothing(
    members: Members, pools: RequestPools, caller: dict[str, Any], state: str, sqlstate: str
) -> None:
    # attack 22
    member = await members.add("acme")
    schema = member.home.schema_name
    async with pools.connection(member.placement) as connection:
        project = await create(connection, member, "ours")
        await members.set_state(member, state)
        asking = member.caller._replace(**caller)
        for attempt in (
            lists.read_list(connection, asking, schema, 1, "projects", listing(members)),
            gate.read_one(connection, asking, schema, 1, "projects", project["id"]),
            gate.call_function(connection, asking, schema, 1, "create_project", '{"name": "late"}'),
        ):
            with pytest.raises(asyncpg.PostgresError) as raised:
                await attempt
            assert raised.value.sqlstate == sqlstate


async def test_a_home_serves_no_tenant_of_another_home(members: Members, pools: RequestPools) -> None:
    # a principal of A over B's pool
    acme, other = await members.add("acme", "schema"), await members.add("other", "schema")
    async with pools.connection(other.placement) as connection:
        await create(connection, other, "other's")
        with pytest.raises(asyncpg.PostgresError) as raised:
            await lists.read_list(connection, acme.caller, other.home.schema_name, 1, "projects", listing(members))
        assert raised.value.sqlstate == "TN404"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await lists.read_list(connection, other.caller, acme.home.schema_name, 1, "projects", listing(members))


async def test_a_read_only_call_cannot_write(members: Members, pools: RequestPools) -> None:
    # attack 23
    member = await members.add("acme")
    async with pools.connection(member.placement) as connection:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await gate.call_function(
                connection,
                member.caller,
                member.home.schema_name,
                1,
                "create_project",
                '{"name": "no"}',
                read_only=True,
            )
        assert await names(members, connection, member) == []


async def test_a_failure_at_commit_is_a_failure_of_the_call(members: Members, pools: RequestPools) -> None:
    member = await members.add("acme", "schema")
    async with members.databases.admin(members.cluster, member.home.database) as admin:
        await admin.execute(
            f"""
            SET ROLE cp_owner; SET search_path = {member.home.schema_name};
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT
                AS $$ BEGIN RAISE EXCEPTION 'late' USING ERRCODE = '23514'; END $$;
            CREATE CONSTRAINT TRIGGER late AFTER INSERT ON tb_project DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION refuse();
            """
        )
    async with pools.connection(member.placement) as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await create(connection, member, "never")
        assert await names(members, connection, member) == []


async def test_names_are_quoted(members: Members) -> None:
    # attack 31
    hostile = 'x" UNION SELECT 1 --'
    text = gate.one_statement(hostile, 1, hostile)
    assert '"x"" UNION SELECT 1 --__api_v1"."x"" UNION SELECT 1 --"' in text
    with pytest.raises(ValueError, match="NUL"):
        gate.one_statement("a\0b", 1, "projects")


async def test_a_session_may_not_keep_state_of_its_own(members: Members, pools: RequestPools) -> None:
    # attacks 7, 29
    member = await members.add("acme")
    async with pools.connection(member.placement) as connection:
        for statement in ("CREATE TEMP TABLE t ()", f'CREATE TABLE "{member.home.schema_name}".t ()'):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_bind_text_takes_the_caller_and_the_mode(members: Members) -> None:
    member = await members.add("acme")
    box = members.databases.box
    connection = await connect(
        box.open(members.cluster.dsn),
        application_name="tests",
        database=member.home.database,
        user=member.home.role_name,
        password=box.open(member.home.password),
    )
    try:
        async with connection.transaction():
            await connection.execute(gate.BIND, *member.caller, False)
            assert await connection.fetchval("SELECT tenancy.current_tenant_id()") == member.id
    finally:
        await connection.close()
