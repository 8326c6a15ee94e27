"""The table of attacks is complete, and everything that it names exists."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.attacks import ATTACKS, Attack

ROOT = Path(__file__).resolve().parents[2]
LAST = 65


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def functions_of(module: str) -> set[str]:
    return {
        node.name
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def texts_of(module: str) -> list[str]:
    """Every text of the module: the keys of tables of mutations, and docstrings."""
    return [
        node.value for node in ast.walk(_tree(module)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def missing(attack: Attack) -> list[str]:
    """What `attack` names and is not there."""
    lost = [name for name in attack.tests if name.partition("::")[2] not in functions_of(name.partition("::")[0])]
    for name in attack.mutations:
        module, _, mutation = name.partition("::")
        if not any(mutation == text or f"`{mutation}`" in text for text in texts_of(module)):
            lost.append(name)
    return lost


def test_every_number_of_the_list_has_its_row() -> None:
    assert list(ATTACKS) == list(range(1, LAST + 1))


@pytest.mark.parametrize("number", ATTACKS)
def test_what_a_row_names_exists(number: int) -> None:
    assert missing(ATTACKS[number]) == []


@pytest.mark.parametrize("number", ATTACKS)
def test_a_row_without_a_test_or_without_a_mutation_says_why(number: int) -> None:
    attack = ATTACKS[number]
    assert attack.what
    assert (attack.tests and attack.mutations) or attack.why


def test_the_check_sees_what_does_not_exist() -> None:
    module = "tests/unit/test_attack_list.py"
    good = Attack("", (f"{module}::{test_every_number_of_the_list_has_its_row.__name__}",), (f"{module}::test_",))
    assert missing(good) == []
    assert missing(Attack("", (f"{module}::test_of_nothing",), (f"{module}::no such" + " text",))) == [
        f"{module}::test_of_nothing",
        f"{module}::no such" + " text",
    ]
