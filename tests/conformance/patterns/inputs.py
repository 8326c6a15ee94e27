"""What functions take and refuse, by the rules that they declare."""

from __future__ import annotations

import json
from collections.abc import Mapping

import asyncpg

from control_plane.templates.manifest import FieldRule
from tests.conformance.patterns.people import U1


def sample(rule: FieldRule) -> object:
    """A value that a rule allows, without knowing what it is for."""
    low = rule.min or 0
    match rule.type:
        case "string":
            return rule.values[0] if rule.values else "admin".ljust(low, "n")[: rule.max]
        case "uuid":
            return str(U1)
        case "integer" | "decimal":
            return max(low, 1)
        case "boolean":
            return True
        case "date":
            return "2026-01-01"
        case "timestamp":
            return "2026-01-01T00:00:00Z"
        case "object":
            return {name: sample(nested) for name, nested in (rule.fields or {}).items()}
        case "array":
            return [sample(rule.items)] * max(low, 1) if rule.items else []


async def refused_fields(connection: asyncpg.Connection, call: str, given: Mapping[str, object]) -> set[str]:
    """The paths that a function refuses: by its result, or by an exception where it answers no mutation result."""
    try:
        async with connection.transaction():
            result = json.loads(await connection.fetchval(call, json.dumps(given)))
    except asyncpg.InvalidParameterValueError as error:
        problems = json.loads(str(error.detail))
    else:
        assert (result["success"], result["code"]) == (False, "invalid"), result
        problems = result["errors"]
    return {problem["path"] for problem in problems}
