"""The text of conditions and orders. Identifiers are quoted, and a value is a parameter: `$7::text`."""

from __future__ import annotations

from control_plane.pools.gate import quoted
from control_plane.pools.listing import Condition, Sort

_COMPARISONS = {
    "eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "LIKE", "ilike": "ILIKE"
}  # fmt: skip
_IS = {"null": "NULL", "not_null": "NOT NULL", "true": "TRUE", "false": "FALSE"}


def condition_text(condition: Condition, value: str) -> str:
    column, operator, type_, negated, state = condition
    if state is not None:
        text = f"{quoted(column)} IS {_IS[state]}"
    elif operator == "in":
        text = f"{quoted(column)} = ANY ({value}::{type_}[])"
    else:
        text = f"{quoted(column)} {_COMPARISONS[operator]} {value}::{type_}"
    return f"NOT ({text})" if negated else text


def sort_text(sort: Sort, key: str, forward: bool) -> str:
    nulls = "" if sort.natural else " NULLS FIRST" if sort.nulls_first else " NULLS LAST"
    return key + (" DESC" if sort.descending == forward else "") + nulls


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
