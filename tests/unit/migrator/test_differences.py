"""What is told of two homes that are not alike."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.migrator.altering import added_labels, altered
from control_plane.migrator.ddl import Names, dropped, granted
from control_plane.migrator.differences import find_differences
from control_plane.migrator.structure import Key

TABLE = Key("table", "base", "", "tb_a")
COLUMN = Key("column", "base", "tb_a", "x")
INDEX = Key("index", "base", "tb_a", "tb_a_x")
API = Key("schema", "api_v2", "", "")
VIEW = Key("view", "api_v2", "", "things")
NAMES = Names("t_1", ["cp_1", "cp_2"])


def table(*columns: str, **aspects: Any) -> dict[str, Any]:
    return {"persistence": "p", "columns": list(columns), "owner": "cp_owner"} | aspects


def told(expected: dict[Key, Any], found: dict[Key, Any]) -> list[str]:
    return [str(each) for each in find_differences(expected, found)]


def test_the_parts_of_what_is_missing_or_extra_are_not_told_again() -> None:
    whole: dict[Key, Any] = {TABLE: table("x"), COLUMN: {}, INDEX: {}, API: {}, VIEW: {}}
    assert told(whole, {}) == ["the schema api_v2 is missing", "the table tb_a is missing"]
    assert told({}, whole) == ["the schema api_v2 is not in the template", "the table tb_a is not in the template"]
    assert told(whole, {key: aspects for key, aspects in whole.items() if key not in (INDEX, VIEW)}) == [
        "the index tb_a_x is missing",
        "the view api_v2.things is missing",
    ]


def test_a_missing_column_is_told_once_and_the_order_of_the_others_is_kept() -> None:
    assert told({TABLE: table("a", "x", "b"), COLUMN: {}}, {TABLE: table("a", "b")}) == ["the column tb_a.x is missing"]
    assert told({TABLE: table("a", "b")}, {TABLE: table("b", "a")}) == [
        "the table tb_a: order of columns is b, a, not a, b"
    ]


@pytest.mark.parametrize(
    ("expected", "found", "text"),
    [
        ({"type": "text"}, {"type": "integer"}, "type is integer, not text"),
        ({"not null": True}, {"not null": False}, "not null is no, not yes"),
        ({}, {"default": "'x'"}, "default is 'x', not nothing"),
        ({"default": "x" * 90}, {"default": "y"}, "default is not as in the template"),
        ({"default": "a\nb"}, {"default": "y"}, "default is not as in the template"),
        ({"grants": {"a": ["SELECT"]}}, {"grants": {}}, "grants to a is nothing, not SELECT"),
    ],
)
def test_what_differs_is_told_with_both_values_where_they_are_short(
    expected: dict[str, Any], found: dict[str, Any], text: str
) -> None:
    assert told({COLUMN: expected}, {COLUMN: found}) == [f"the column tb_a.x: {text}"]


@pytest.mark.parametrize(
    ("expected", "found", "statements"),
    [
        (["a", "b"], ["a"], ["ALTER TYPE \"t_1\".\"mood\" ADD VALUE 'b' AFTER 'a'"]),
        (["a", "it's"], ["it's"], ["ALTER TYPE \"t_1\".\"mood\" ADD VALUE 'a' BEFORE 'it''s'"]),
        (["a"], [], ['ALTER TYPE "t_1"."mood" ADD VALUE \'a\'']),
        (["a"], ["a", "b"], None),
        (["a", "b"], ["b", "a"], None),
    ],
)
def test_labels_are_added_and_never_moved(expected: list[str], found: list[str], statements: list[str] | None) -> None:
    assert added_labels(NAMES, Key("type", "base", "", "mood"), expected, found) == statements


@pytest.mark.parametrize(
    ("wanted", "present", "statements"),
    [
        (["INSERT", "SELECT"], ["SELECT"], ["GRANT INSERT ON TABLE {t} TO {r}"]),
        ([], ["SELECT"], ["REVOKE SELECT ON TABLE {t} FROM {r}"]),
        (["SELECT"], ["SELECT*"], ["REVOKE GRANT OPTION FOR SELECT ON TABLE {t} FROM {r}"]),
        (["SELECT*"], ["SELECT"], ["GRANT SELECT ON TABLE {t} TO {r} WITH GRANT OPTION"]),
        (["SELECT"], ["SELECT"], []),
    ],
)
def test_grants_are_set_back_for_each_login_role(wanted: list[str], present: list[str], statements: list[str]) -> None:
    expected = [text.format(t='"t_1"."tb_a"', r='"cp_1", "cp_2"') for text in statements]
    assert list(granted(NAMES, TABLE, "<login>", wanted, present)) == expected


def test_a_right_to_a_column_is_one_to_the_column_alone() -> None:
    assert list(granted(NAMES, COLUMN, "cp_support", ["SELECT"])) == [
        'GRANT SELECT ("x") ON TABLE "t_1"."tb_a" TO cp_support'
    ]


def test_options_are_reset_and_set() -> None:
    todo = {"options": (["a=1"], ["a=2", "b=1"])}
    assert altered(NAMES, TABLE, todo, table(), None) == [
        'ALTER TABLE "t_1"."tb_a" RESET (a, b)',
        'ALTER TABLE "t_1"."tb_a" SET (a=1)',
    ]


def test_a_sequence_is_changed_in_place() -> None:
    wanted = {"type": "bigint", "increment": 2, "min": 1, "max": 9, "start": 1, "cache": 1, "cycle": False}
    key = Key("sequence", "base", "", "ticket")
    options = "INCREMENT BY 2 MINVALUE 1 MAXVALUE 9 START WITH 1 CACHE 1 NO CYCLE"
    assert altered(NAMES, key, {"increment": (2, 3)}, wanted, None) == [
        f'ALTER SEQUENCE "t_1"."ticket" AS bigint {options}'
    ]
    assert altered(NAMES, key, {"owned by": (None, ["tb_a", "x"])}, wanted, None) == [
        'ALTER SEQUENCE "t_1"."ticket" OWNED BY NONE'
    ]


@pytest.mark.parametrize(
    ("key", "statement"),
    [
        (INDEX, 'DROP INDEX "t_1"."tb_a_x"'),
        (VIEW, 'DROP VIEW "t_1__api_v2"."things"'),
        (Key("constraint", "base", "tb_a", "c"), 'ALTER TABLE "t_1"."tb_a" DROP CONSTRAINT "c"'),
        (Key("rule", "base", "tb_a", "r"), 'DROP RULE "r" ON "t_1"."tb_a"'),
        (Key("function", "base", "", "f(<home>.mood)"), 'DROP ROUTINE "t_1"."f"(t_1.mood)'),
    ],
)
def test_what_is_made_anew_is_dropped_by_its_name(key: Key, statement: str) -> None:
    assert dropped(NAMES, key) == statement
