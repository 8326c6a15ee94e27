"""Pattern 23: an entity leaves its ORM in recorded stages, each of which can be taken back until it is done.

The legacy database is one application's, so there are no isolation modes to try; the ORM is a role that logs in.
"""

from __future__ import annotations

import asyncio
import json
import re
from itertools import pairwise
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from control_plane.adoption import applying, cutover, keeping, planning, suspension
from control_plane.adoption.cutover import NewEntity, Outcome
from control_plane.adoption.planning import PlanRequest
from control_plane.adoption.records import AdoptionRecord
from control_plane.adoption.work import Work
from control_plane.errors import AdoptionConflict, AdoptionRefused, CutoverRefused, InvalidInput
from control_plane.pools.databases import Databases
from tests.support.legacy import Legacy, create_legacy
from tests.support.servers import Server

ACTOR = "tests"
WRITES = (
    "INSERT INTO users (email, name, hash) VALUES ('x@example.com', 'X', 'h')",
    "UPDATE users SET name = 'X' WHERE id = 1",
    "DELETE FROM users WHERE id = 2",
    "TRUNCATE users CASCADE",
)
SCHEMA = """
CREATE SCHEMA audit;
CREATE TABLE users (
    id bigserial PRIMARY KEY,
    email varchar(40) NOT NULL UNIQUE,
    name text NOT NULL CHECK (name <> ''),
    hash text NOT NULL,
    credit numeric(10, 2) NOT NULL DEFAULT 0,
    joined timestamptz NOT NULL DEFAULT '2026-01-01 00:00:00+00',
    manager_id bigint REFERENCES users (id),
    tags text[],
    kind text GENERATED ALWAYS AS (CASE WHEN credit > 0 THEN 'paying' ELSE 'free' END) STORED
);
INSERT INTO users (email, name, hash, credit)
SELECT 'u' || n || '@example.com', 'User ' || n, md5(n::text), n % 7 FROM generate_series(1, 1000) AS n;
"""


class Orm:
    """The legacy database, its adoption, and shorthands for what a test does to the entity `user`."""

    def __init__(self, databases: Databases, legacy: Legacy, adoption: AdoptionRecord) -> None:
        self.databases = databases
        self.legacy = legacy
        self.adoption = adoption

    async def start(self, **choices: Any) -> Outcome:
        new = NewEntity("user", "users", choices.pop("orm_role", self.legacy.orm_role), **choices)
        return await cutover.start(self.databases, "shop", new, actor=ACTOR)

    async def advance(self) -> Outcome:
        return await cutover.advance(self.databases, "shop", "user", actor=ACTOR)

    async def back(self) -> Outcome:
        return await cutover.back(self.databases, "shop", "user", actor=ACTOR)

    async def check(self) -> Outcome:
        return await cutover.check(self.databases, "shop", "user")

    async def at(self, stage: str) -> None:
        reached = (await self.start()).entity.stage
        while reached != stage:
            reached = (await self.advance()).entity.stage

    async def stage(self) -> str:
        return (await cutover.status(self.databases, "shop", "user"))[0].stage

    async def call(self, function: str, **given: Any) -> dict[str, Any]:
        """As the ORM's role, which is the application's too unless a test says otherwise."""
        async with self.legacy.orm() as connection:
            answer = await connection.fetchval(f"SELECT adoption.fn_{function}_user($1)", json.dumps(given))
        result: dict[str, Any] = json.loads(answer)
        return result

    async def write(self, statement: str) -> None:
        async with self.legacy.orm() as connection:
            await connection.execute(f"BEGIN; {statement}; ROLLBACK")

    async def privileges(self) -> set[tuple[Any, ...]]:
        """Everything that is granted on the table and its columns."""
        async with self.legacy.owner() as connection:
            rows = await connection.fetch("""
                SELECT NULL AS attname, a.* FROM pg_class, aclexplode(coalesce(relacl, acldefault('r', relowner))) AS a
                WHERE oid = 'users'::regclass
                UNION ALL
                SELECT attname, a.* FROM pg_attribute, aclexplode(attacl) AS a WHERE attrelid = 'users'::regclass
            """)
        return {tuple(row) for row in rows}


@pytest_asyncio.fixture
async def orm(server: Server, databases: Databases, installation_id: UUID) -> Orm:
    legacy = await create_legacy(server, installation_id, SCHEMA)
    await legacy.execute(f"GRANT TRUNCATE ON users TO {legacy.orm_role}")
    await planning.plan(databases, PlanRequest("shop", legacy.dsn), actor=ACTOR)
    return Orm(databases, legacy, await applying.apply(databases, "shop", actor=ACTOR))


async def corrupt(orm: Orm, before: str, after: str) -> None:
    """Change the mapping of one field in the view."""
    async with orm.legacy.owner() as connection:
        # PostgreSQL 15 names the table before each column.
        definition = re.sub(r"\bt\.", "", await connection.fetchval("SELECT pg_get_viewdef('adoption.v_users')"))
        assert before in definition
        await connection.execute(
            f"SET ROLE {orm.adoption.reader_role};"
            f"CREATE OR REPLACE VIEW adoption.v_users WITH (security_invoker = true) AS "
            + definition.replace(before, after)
        )


# Requirement 1: stages


async def test_every_move_is_recorded_and_reversible_until_it_is_done(orm: Orm) -> None:
    """Requirement 1: orm → shadow → views → functions → done, and back from each but the last."""
    before, dump = await orm.privileges(), orm.legacy.dump()
    outcome = await orm.start()
    assert outcome.entity.stage == "shadow"
    assert [(await orm.advance()).entity.stage for _ in range(2)] == ["views", "functions"]
    assert [(await orm.back()).entity.stage for _ in range(3)] == ["views", "shadow", "orm"]
    assert await orm.privileges() == before
    assert orm.legacy.dump() == dump, "nothing is left of the functions and their role"
    with pytest.raises(AdoptionConflict):
        await orm.back()
    with pytest.raises(AdoptionConflict):
        await orm.advance()
    await orm.at("done")
    with pytest.raises(CutoverRefused, match="no way back"):
        await orm.back()
    with pytest.raises(AdoptionConflict):
        await orm.advance()
    _, moves = await cutover.status(orm.databases, "shop", "user")
    stages = ["orm", "shadow", "views", "functions", "views", "shadow", "orm", "shadow", "views", "functions", "done"]
    assert [(each.from_stage, each.to_stage) for each in moves] == list(pairwise(stages))
    assert {each.actor for each in moves} == {ACTOR}
    assert moves[1].report is not None
    assert (moves[1].report["orm_rows"], moves[1].report["fields"]) == (1000, {})


async def test_the_functions_may_be_called_from_views_on(orm: Orm) -> None:
    """Requirement 1: in shadow they exist, and nobody but their owner may call them."""
    await orm.start()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await orm.call("create", email="a@example.com", name="A", hash="h")
    await orm.advance()
    assert (await orm.call("create", email="a@example.com", name="A", hash="h"))["success"]
    await orm.back()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await orm.call("create", email="b@example.com", name="B", hash="h")


async def test_a_move_that_broke_off_is_repeated_or_undone(orm: Orm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requirement 1: the privileges that are restored are those of before, however often a move was tried."""
    before = await orm.privileges()
    record, left = Work.record, 0

    async def crash(self: Work, row: Any, **values: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("crash")
        await record(self, row, **values)

    monkeypatch.setattr(Work, "record", crash)
    crashes = 0

    async def until_done(verb: Any) -> None:
        nonlocal crashes, left
        step = 0
        while True:
            left = step
            try:
                await verb()
                return
            except RuntimeError:
                crashes, step = crashes + 1, step + 1

    for verb in (orm.start, orm.advance, orm.advance, orm.back, orm.back, orm.back):
        await until_done(verb)
    assert crashes >= 10
    assert (await orm.stage(), await orm.privileges()) == ("orm", before)

    left = 1000
    await orm.at("views")
    left = 1  # the intent is recorded and the privileges are gone, and then
    with pytest.raises(RuntimeError):
        await orm.advance()
    left = 1000
    record_now, _ = await cutover.status(orm.databases, "shop", "user")
    assert (record_now.stage, record_now.moving_to) == ("views", "functions")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await orm.write(WRITES[0])
    assert (await orm.back()).entity.stage == "views"
    await orm.write(WRITES[0])


# Requirement 2: the shadow check


async def test_a_shadow_report_without_differences(orm: Orm) -> None:
    """Check 23.1, first half: 1 000 rows, 0 differences."""
    shadow = (await orm.start()).shadow
    assert shadow is not None
    assert (shadow.orm_rows, shadow.view_rows, shadow.equal, shadow.differences()) == (1000, 1000, True, [])


@pytest.mark.parametrize(
    ("field", "before", "after"),
    [
        ("name", "'name', name", "'name', upper(name)"),
        ("credit", "'credit', credit", "'credit', credit::numeric(12, 4)"),
        ("hash_free", "'email', email", "'mail', email"),
    ],
)
async def test_a_field_that_is_mapped_wrongly_is_named(orm: Orm, field: str, before: str, after: str) -> None:
    """Check 23.1, second half: the report names the field and 1 000 keys, and advancing is refused."""
    await orm.start()
    await corrupt(orm, before, after)
    shadow = (await orm.check()).shadow
    assert shadow is not None
    (difference,) = shadow.differences()
    assert difference["field"] == {"hash_free": "email"}.get(field, field)
    assert difference["keys"] == 1000
    assert len(difference["samples"]) == 5
    with pytest.raises(CutoverRefused) as refused:
        await orm.advance()
    assert refused.value.errors == [difference]
    assert await orm.stage() == "shadow"


async def test_rows_that_only_one_side_has_are_counted(orm: Orm) -> None:
    """Requirement 2: count and keys."""
    await orm.start()
    async with orm.legacy.owner() as connection:
        definition = (await connection.fetchval("SELECT pg_get_viewdef('adoption.v_users')")).rstrip(";")
        await connection.execute(
            f"SET ROLE {orm.adoption.reader_role}; CREATE OR REPLACE VIEW adoption.v_users"
            f" WITH (security_invoker = true) AS {definition} WHERE id > 3"
        )
    shadow = (await orm.check()).shadow
    assert shadow is not None
    assert (shadow.orm_rows, shadow.view_rows) == (1000, 997)
    assert (shadow.only_in_orm.keys, shadow.only_in_orm.samples, shadow.only_in_view.keys) == (3, [[1], [2], [3]], 0)
    with pytest.raises(CutoverRefused):
        await orm.advance()


async def test_the_orm_s_own_query_can_be_compared(orm: Orm) -> None:
    """Requirement 2: what the ORM reads, with its columns' names for the keys of the document."""
    query = "SELECT u.id AS pk, u.name AS full_name, u.credit FROM users AS u"
    outcome = await orm.start(orm_query=query, orm_keys={"pk": "id", "full_name": "name"})
    assert outcome.shadow is not None
    assert outcome.shadow.equal
    outcome = await orm.start(orm_query=f"{query} WHERE id <= 999", orm_keys={"pk": "id", "full_name": "name"})
    assert outcome.shadow is not None
    assert (outcome.shadow.only_in_view.keys, outcome.shadow.fields) == (1, {})
    outcome = await orm.start(orm_query="SELECT id, hash FROM users")
    assert outcome.shadow is not None
    assert [each["field"] for each in outcome.shadow.differences()] == ["hash"], "the view withholds it"
    for wrong in ({"orm_query": "SELECT name FROM users"}, {"orm_keys": {"nope": "id"}}):
        with pytest.raises(InvalidInput):
            await orm.start(**wrong)


async def test_the_orm_s_query_can_only_read_and_only_what_its_role_may(orm: Orm) -> None:
    await orm.legacy.execute(
        "CREATE TABLE vault (id int); CREATE FUNCTION spend() RETURNS bigint LANGUAGE sql AS"
        " 'UPDATE users SET credit = 9 WHERE id = 1 RETURNING id'"
    )
    for query in ("SELECT spend() AS id", "SELECT id FROM vault", "SELECT 1 AS id; DROP TABLE users"):
        with pytest.raises(AdoptionRefused):
            await orm.start(orm_query=query)


# Requirement 3: both write paths


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


# Requirement 4: functions only


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
