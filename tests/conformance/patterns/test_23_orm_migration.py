"""Pattern 23: an entity leaves its ORM in recorded stages, each of which can be taken back until it is done.

The legacy database is one application's, so there are no isolation modes to try.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from control_plane.adoption import cutover
from control_plane.adoption.work import Work
from control_plane.errors import AdoptionConflict, AdoptionRefused, CutoverRefused, InvalidInput
from tests.conformance.patterns.orms import ACTOR, WRITES, Orm, corrupt


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
