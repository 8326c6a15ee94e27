"""Pattern 23, requirements 3 and 4: the ORM and functions write side by side, and then functions only."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from control_plane.adoption import applying, cutover, keeping, suspension
from control_plane.errors import AdoptionConflict, CutoverRefused
from tests.conformance.patterns.orms import ACTOR, WRITES, Orm


async def test_projections_follow_both_write_paths_and_lag_is_reported(orm: Orm) -> None:
    """Requirement 3: functions sync as they write; what the ORM writes shows as lag until the next sync."""
    await orm.at("views")
    created = await orm.call("create", email="f@example.com", name="F", hash="h")
    identity = created["data"]["user"]["id"]
    drift = (await orm.check()).drift
    assert drift is not None
    assert drift.rows == 0
    async with orm.legacy.orm() as connection:
        await connection.execute("UPDATE users SET name = 'By the ORM' WHERE id = 7; DELETE FROM users WHERE id = 8")
        assert await connection.fetchval("SELECT data ->> 'name' FROM adoption.v_users WHERE id = 7") == "By the ORM"
    outcome = await orm.check()
    assert outcome.drift is not None
    assert outcome.shadow is not None
    assert (outcome.drift.stale, outcome.drift.extra, outcome.shadow.equal) == (1, 1, True)
    await keeping.sync(orm.databases, "shop")
    assert (await keeping.check(orm.databases, "shop"))[0].rows == 0
    assert (await orm.call("delete", id=identity))["success"]
    assert (await keeping.check(orm.databases, "shop"))[0].rows == 0


async def test_advancing_brings_the_projection_up_to_date(orm: Orm) -> None:
    """Requirement 3: also with what a transaction of the ORM commits while the privileges are being taken."""
    await orm.at("views")
    async with orm.legacy.orm() as writer, orm.legacy.owner() as watch:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("INSERT INTO users (email, name, hash) VALUES ('last@example.com', 'Last', 'h')")
        move = asyncio.create_task(orm.advance())
        while not await watch.fetchval(
            "SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND NOT granted"
            " AND relation = 'users'::regclass"
        ):
            assert not move.done()
            await asyncio.sleep(0.01)
        await transaction.commit()
        outcome = await move
        assert outcome.drift is not None
        assert (outcome.entity.stage, outcome.drift.rows, outcome.drift.projected) == ("functions", 0, 1001)


async def test_at_stage_functions_the_orm_reads_and_cannot_write(orm: Orm) -> None:
    """Requirement 4 and check 23.3: 42501, and the functions work; back at views the writes do again."""
    for write in WRITES:
        await orm.write(write)
    await orm.at("functions")
    for write in WRITES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await orm.write(write)
    async with orm.legacy.orm() as connection:
        assert await connection.fetchval("SELECT count(*) FROM users") == 1000
    created = await orm.call("create", email="new@example.com", name="New", hash="h", credit="1.50", tags=["a", "b"])
    assert (created["success"], created["code"]) == (True, "created")
    assert created["data"]["user"] == {
        "__typename": "Users", "id": created["data"]["user"]["id"], "email": "new@example.com", "name": "New",
        "credit": 1.5, "joined": "2026-01-01T00:00:00+00:00", "manager_id": None, "tags": ["a", "b"], "kind": "paying",
    }  # fmt: skip
    await orm.back()
    for write in WRITES:
        await orm.write(write)


async def test_what_is_given_back_is_exactly_what_was_taken(orm: Orm, installation_id: UUID) -> None:
    """Requirement 4: columns, grant options and other grantors included."""
    role = orm.legacy.orm_role
    await orm.legacy.execute(
        f"REVOKE ALL ON users FROM {role}; GRANT SELECT ON users TO {role}; GRANT INSERT (email, name, hash),"
        f" UPDATE (name) ON users TO {role}; GRANT DELETE ON users TO {role} WITH GRANT OPTION"
    )
    before = await orm.privileges()
    await orm.at("functions")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await orm.write(WRITES[0])
    await orm.back()
    ours = {role_of for role_of in await orm.privileges() if role_of not in before}
    query = "SELECT oid FROM pg_roles WHERE rolname ~ '_aw_' AND starts_with(rolname, $1)"
    async with orm.legacy.owner() as connection:
        writer = await connection.fetchval(query, f"cp_{installation_id.hex[:8]}")
    assert {each[2] for each in ours} == {writer}, "only the functions' role has more than before"
    assert before <= await orm.privileges()


@pytest.mark.parametrize("way", ["PUBLIC", "{role}_group"])
async def test_an_orm_that_could_still_write_is_not_advanced(orm: Orm, way: str) -> None:
    """Requirement 4: privileges through PUBLIC or another role are found, and nothing is taken."""
    holder = way.format(role=orm.legacy.orm_role)
    if holder != "PUBLIC":
        await orm.legacy.execute(f"CREATE ROLE {holder}; GRANT {holder} TO {orm.legacy.orm_role}")
    await orm.legacy.execute(f"GRANT UPDATE (name) ON users TO {holder}")
    await orm.at("views")
    before = await orm.privileges()
    with pytest.raises(CutoverRefused, match="could still UPDATE"):
        await orm.advance()
    assert (await orm.stage(), await orm.privileges()) == ("views", before)
    assert (await cutover.status(orm.databases, "shop", "user"))[0].moving_to is None


async def test_an_orm_that_owns_its_table_loses_its_writes_too(orm: Orm) -> None:
    await orm.legacy.execute(f"GRANT CREATE ON SCHEMA public TO {orm.legacy.orm_role};"
                             f"ALTER TABLE users OWNER TO {orm.legacy.orm_role}")  # fmt: skip
    before = await orm.privileges()
    assert "owns the table" in " ".join((await orm.start()).notes)
    await orm.advance()
    await orm.advance()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await orm.write(WRITES[0])
    assert (await orm.call("create", email="o@example.com", name="O", hash="h"))["success"]
    await orm.back()
    assert before <= await orm.privileges()
    await orm.write(WRITES[0])


REFUSED: list[tuple[str, dict[str, Any], str, list[tuple[str, str]]]] = [
    ("create", {"name": "N", "hash": "h"}, "invalid", [("email", "required")]),
    ("create", {"email": "e", "name": None, "hash": "h"}, "invalid", [("name", "required")]),
    ("create", {"email": "e", "name": "N", "hash": "h", "nope": 1}, "invalid", [("nope", "unknown")]),
    ("create", {"email": "e", "name": "N", "hash": "h", "kind": "paying"}, "invalid", [("kind", "unknown")]),
    ("create", {"email": "e" * 41, "name": "N", "hash": "h"}, "invalid", [("email", "invalid")]),
    ("create", {"email": "e", "name": "N", "hash": "h", "credit": "lots"}, "invalid", [("credit", "invalid")]),
    ("create", {"email": "e", "name": "", "hash": "h"}, "invalid", []),
    ("create", {"email": "u1@example.com", "name": "N", "hash": "h"}, "conflict", []),
    ("create", {"email": "e", "name": "N", "hash": "h", "manager_id": 5000}, "invalid", []),
    ("update", {"name": "N"}, "invalid", [("id", "required")]),
    ("update", {"id": 5000, "name": "N"}, "not_found", []),
    ("update", {"id": "five"}, "invalid", [("id", "invalid")]),
    ("delete", {"id": 5000}, "not_found", []),
    ("delete", {"id": 1, "name": "N"}, "invalid", [("name", "unknown")]),
    ("delete", {"id": 9}, "conflict", []),
]


async def test_the_functions_check_what_they_are_given(orm: Orm) -> None:
    """Requirement 4: input is held against the columns; refusals are results that tell nothing about the table."""
    await orm.legacy.execute("UPDATE users SET manager_id = 9 WHERE id = 10")
    await orm.at("views")
    for function, given, code, problems in REFUSED:
        result = await orm.call(function, **given)
        assert (result["success"], result["code"], result["data"]) == (False, code, None), given
        assert [(each["path"], each["code"]) for each in result["errors"]] == problems, given
        assert not any(word in json.dumps(result) for word in ("users_", "constraint", "Failing row")), given


async def test_update_changes_what_is_given_and_delete_answers_the_key(orm: Orm) -> None:
    await orm.at("functions")
    updated = await orm.call("update", id=5, name="Renamed", manager_id=1)
    assert (updated["data"]["user"]["name"], updated["data"]["user"]["manager_id"]) == ("Renamed", 1)
    assert updated["data"]["user"]["email"] == "u5@example.com"
    assert (await orm.call("update", id=5))["data"] == updated["data"]
    assert (await orm.call("delete", id=6))["data"] == {"id": 6}
    async with orm.legacy.orm() as connection:
        assert await connection.fetchval("SELECT data ->> 'name' FROM adoption.tv_users WHERE id = 5") == "Renamed"
        assert not await connection.fetchval("SELECT count(*) FROM adoption.tv_users WHERE id = 6")


async def test_only_the_named_role_calls_the_functions(orm: Orm) -> None:
    await orm.legacy.execute(f"CREATE ROLE {orm.legacy.orm_role}_app")
    await orm.start(app_role=f"{orm.legacy.orm_role}_app")
    await orm.advance()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await orm.call("delete", id=1)
    async with orm.legacy.owner() as connection:
        await connection.execute(f"GRANT {orm.legacy.orm_role}_app TO CURRENT_USER; SET ROLE {orm.legacy.orm_role}_app")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("SELECT adoption.write_row('user', 'delete', '{\"id\": 1}')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM users WHERE id = 1")
        assert json.loads(await connection.fetchval("SELECT adoption.fn_delete_user('{\"id\": 1}')"))["success"]


async def test_an_adoption_with_entities_on_their_way_stays(orm: Orm) -> None:
    await orm.at("functions")
    with pytest.raises(AdoptionConflict, match="have left the ORM: user"):
        await applying.uninstall(orm.databases, "shop", actor=ACTOR)
    for _ in range(3):
        await orm.back()
    await applying.uninstall(orm.databases, "shop", actor=ACTOR)


async def test_the_functions_follow_a_migration_of_the_table(orm: Orm) -> None:
    await orm.at("functions")
    await suspension.suspend(orm.databases, "shop", "users", actor=ACTOR)
    with pytest.raises(AdoptionConflict, match="suspended"):
        await orm.advance()
    with pytest.raises(asyncpg.LockNotAvailableError, match="suspended"):
        await orm.call("delete", id=1)
    await orm.legacy.execute("ALTER TABLE users ADD COLUMN phone text NOT NULL DEFAULT '', DROP COLUMN tags")
    await suspension.resume(orm.databases, "shop", "users", actor=ACTOR)
    created = await orm.call("create", email="p@example.com", name="P", hash="h", phone="123")
    assert created["data"]["user"]["phone"] == "123"
    assert (await orm.call("create", email="q", name="Q", hash="h", tags=[]))["errors"][0]["code"] == "unknown"
    assert (await orm.advance()).entity.stage == "done"
