"""Pattern 24, requirement 2: views beside the tables of a database that was there before us, which stays as it is.

A legacy database is one application's, so there are no isolation modes to try.
"""

from __future__ import annotations

import json
from uuid import UUID

import asyncpg
import pytest

from control_plane.adoption import applying, keeping, planning, records
from control_plane.adoption.planning import PlanRequest
from control_plane.errors import AdoptionNotFound, AdoptionRefused, InvalidInput
from control_plane.pools.databases import Databases
from control_plane.registry.models import Adoption
from tests.conformance.patterns.adoptions import ACTOR, adopt, adoption_id
from tests.support.legacy import Legacy


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
        adoption = await session.get(Adoption, (await adoption_id(databases)))
        assert adoption is not None
        assert password.encode() not in adoption.dsn
        assert databases.box.open(adoption.dsn) == legacy.dsn
    shown = repr(await records.list_adoptions(databases)) + planned.sql + json.dumps(planned.document())
    assert password not in shown
