"""The rules of template.toml held against the functions: what breaks one is a result that names the place, never an
error of the database, whichever function is called and whichever field is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from control_plane.settings import shipped
from control_plane.templates import Templates
from control_plane.templates.manifest import FieldRule
from tests.conformance.patterns.inputs import refused_fields, sample
from tests.conformance.patterns.posts import undone
from tests.conformance.world import World

TEMPLATE = Templates.load(shipped("tenant_templates"))["reference"]
API = max(TEMPLATE.api_versions(TEMPLATE.latest))
# Of functions that are in the latest API version and declare any input.
CALLED = {
    name: function.input
    for name, function in TEMPLATE.manifest.functions.items()
    if (function.api is None or API in function.api) and function.input
}

WRONG: dict[str, tuple[object, ...]] = {
    "string": (5, True, [], {}),
    "uuid": ("abc", "", 5, {}, "00000000-0000-0000-0000-00000000000", "{00000000-0000-0000-0000-000000000000}"),
    "integer": ("1", "", 1.5, 1.0, 1e300, True, [], {}),
    "decimal": ("", "1e3", "NaN", "Infinity", "1,5", True, []),
    "boolean": ("true", 1, 0, ""),
    "date": ("", "today", "infinity", "2024-02-30", "2024-13-01", "2024-01-01T00:00:00Z", 5),
    "timestamp": ("", "now", "infinity", "2024-01-01T25:00:00Z", "2024-01-01T00:00:00+99:00", 5),
    "object": ("{}", 5, []),
    "array": ("[]", 5, {}),
}


def sized(rule: FieldRule, size: int) -> object:
    match rule.type:
        case "string":
            return " " * size
        case "array":
            return [5] * size
        case _:
            return size


def out_of_bounds(rule: FieldRule) -> Iterator[object]:
    """Less than the least and more than the most that a rule allows, and what is not in its list."""
    if rule.min is not None:
        yield sized(rule, rule.min - 1)
    if rule.max is not None:
        yield sized(rule, rule.max + 1)
    if rule.values:
        yield "none of these"


def broken(rule: FieldRule, path: str) -> Iterator[tuple[str, object]]:
    """Values that break a rule, each with the path of the problem: of the value, or of what is in it."""
    for value in (*WRONG[rule.type], *out_of_bounds(rule)):
        yield path, value
    for name, nested in (rule.fields or {}).items():
        whole: Any = sample(rule)
        for place, value in broken(nested, f"{path}.{name}"):
            yield place, {**whole, name: value}
    if rule.items:
        for place, value in broken(rule.items, f"{path}.1"):
            yield place, [sample(rule.items), value]


@pytest.mark.parametrize("name", CALLED)
async def test_what_breaks_a_rule_is_a_result(shared_world: World, name: str) -> None:
    async with undone(shared_world, shared_world.a, roles=("admin",)) as connection:
        call = f'SELECT "{shared_world.a.schema}__api_v{API}".{name}($1)'
        valid = {field: sample(rule) for field, rule in CALLED[name].items()}
        cases = [
            (place, {**valid, field: value})
            for field, rule in CALLED[name].items()
            for place, value in broken(rule, field)
        ]
        cases += [(field, {**valid, field: None}) for field, rule in CALLED[name].items() if rule.required]
        cases.append(("no_such_field", {**valid, "no_such_field": 1}))
        for place, given in cases:
            assert place in await refused_fields(connection, call, given), given
