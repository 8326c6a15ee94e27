"""Which printed definitions say the same."""

from __future__ import annotations

import pytest

from control_plane.migrator.expressions import same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CHECK ((((a >= 0) AND (a <= 3)) AND (b = 1)))", "CHECK (((a >= 0) AND (a <= 3) AND (b = 1)))"),
        ("((a = 1) OR ((b = 1) OR (c = 1)))", "((a = 1) OR (b = 1) OR (c = 1))"),
        (" SELECT 1 WHERE (((a) AND (b)) AND (c))\n", " SELECT 1 WHERE ((a) AND (b) AND (c))\n"),
        ("it's (no expression", "it's (no expression"),
    ],
)
def test_parentheses_within_a_chain_say_nothing(one: str, other: str) -> None:
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(((a) OR (b)) AND (c))", "((a) OR (b) AND (c))"),
        ("((a) AND ((b) OR (c)))", "(((a) AND (b)) OR (c))"),
        ("((a = '(x) AND (y)') AND (b))", "((a = '((x) AND (y))') AND (b))"),
        ("(((a) AND (b)) AND (c))", "((a) AND (b) AND (d))"),
        ("(NOT ((a) AND (b)))", "(NOT (a) AND (b))"),
        ("f((a), (b))", "f(a, b)"),
        ("(a", "a"),
        ("a)", "a"),
        ("it's", "its"),
        ('"(" AND b', "( AND b"),
    ],
)
def test_all_else_does(one: str, other: str) -> None:
    assert not same(one, other)
