"""The gated statement: tenant context, query and commit in one round trip. Nothing else sets the tenant context.

`CASE` fixes the order of evaluation, and an uncorrelated sub-select is an InitPlan that runs when it is first asked
for. So nothing of a tenant is read before `set_tenant_context` has agreed, which raises and never answers false.
A CTE or a join gives no such order: the planner may scan first, under whatever context the session has.

The text is constant per (schema, API version, object, shape of the question), so every connection prepares it once.
Identifiers and types come from the registry and the template only, and identifiers are quoted; every value is a
parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import Connection

_GATE = "tenancy.set_tenant_context($1::uuid, $2::uuid, $3::bigint, {read_only}, $4::text[])"
_READ = _GATE.format(read_only="true")
_WRITE = _GATE.format(read_only="false")

# $5 limit, $6 offset. The inner LIMIT keeps the aggregate's input in order. One value, a record, so that all of it
# hangs on the gate: the documents, how many they are, and how many there would be without limit and offset.
_LIST = """
SELECT CASE WHEN {gate} THEN (
    SELECT ROW(convert_to('[' || coalesce(string_agg({document}::text, ','), '') || ']', 'UTF8'), count(*), {total})
    FROM (
        SELECT data FROM {view} WHERE {conditions} ORDER BY {order} LIMIT $5::bigint OFFSET $6::bigint
    ) page
) END"""
_TOTAL = "(SELECT count(*) FROM {view} WHERE {conditions})"
# $7 keys: those of them that the document has.
_PICKED = "(SELECT coalesce(jsonb_object_agg(key, data -> key), '{}') FROM unnest($7::text[]) AS key WHERE data ? key)"

# $5 id.
_ONE = """
SELECT CASE WHEN {gate} THEN (
    SELECT convert_to(data::text, 'UTF8') FROM {view} WHERE tenant_id = $1::uuid AND id = $5::uuid
) END"""

# $5 input. A sub-select that computes something volatile, as the gate is, is never merged into the columns that read
# it: the function runs once.
_CALL = """
SELECT (result ->> 'success')::boolean, result ->> 'code', convert_to(result::text, 'UTF8')
FROM (SELECT CASE WHEN {gate} THEN {function}($5::jsonb) END AS result) called"""

# $5 input, $6 key. The name is resolved when the gate has agreed: a constant would outlive a function that is replaced.
_CALL_ONCE = """
SELECT (result ->> 'success')::boolean, result ->> 'code', convert_to(result::text, 'UTF8')
FROM (SELECT CASE WHEN {gate} THEN tenancy.call_once($6::text, {function}::text::regproc, $5::jsonb) END AS result
) called"""

# $5 API version; nothing when it is one that was taken away.
_DEPRECATIONS = """
SELECT CASE WHEN {gate} THEN (
    SELECT convert_to(coalesce(jsonb_agg(jsonb_build_object(
        'api', api, 'resource', resource, 'field', field, 'replacement', replacement,
        'announced', announced, 'sunset', sunset, 'removed', removed
    ) ORDER BY resource NULLS FIRST, field NULLS FIRST), '[]')::text, 'UTF8')
    FROM tenancy.deprecations()
    WHERE api = $5::integer
    HAVING NOT coalesce(bool_or(removed AND resource IS NULL), false)
) END"""

_COMPARISONS = {
    "eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "LIKE", "ilike": "ILIKE"
}  # fmt: skip
_IS = {"null": "NULL", "not_null": "NOT NULL", "true": "TRUE", "false": "FALSE"}

DEPRECATIONS = _DEPRECATIONS.format(gate=_READ)
BIND = "SELECT tenancy.set_tenant_context($1::uuid, $2::uuid, $3::bigint, $5::boolean, $4::text[])"


class Caller(NamedTuple):
    """Who asks, as the gate's first four parameters."""

    tenant_id: UUID
    user_id: UUID | None
    epoch: int | None
    roles: Sequence[str]


class Condition(NamedTuple):
    """One comparison of a column. Its value is a parameter: text that is read as `type`, the very type of the column.

    No other comparison uses an index under row-level security. `in` takes a list of values, and `is` none: the `state`
    (null, not_null, true or false) is part of the condition.
    """

    column: str
    operator: str
    type: str
    negated: bool = False
    state: str | None = None


class Sort(NamedTuple):
    """A column of the order; nulls come where PostgreSQL puts them, last in a rising order, unless it is said."""

    column: str
    descending: bool = False
    nulls_first: bool | None = None

    @classmethod
    def of(cls, text: str) -> Sort:
        """A column as a template writes it: "-created_at" is descending."""
        return cls(text.removeprefix("-"), text.startswith("-"))


class Shape(NamedTuple):
    """What is asked of a resource, apart from the values."""

    order: tuple[Sort, ...]
    conditions: tuple[Condition, ...] = ()
    picked: bool = False  # of each document only some keys
    counted: bool = False  # also how many rows there are in all


class Listing(NamedTuple):
    """A shape with its values: those of the conditions, in their order without `is`, and limits in rows."""

    shape: Shape
    limit: int
    offset: int = 0
    keys: tuple[str, ...] = ()
    values: tuple[str | tuple[str, ...], ...] = ()


class Page(NamedTuple):
    """`body` is a JSON array of `rows` documents; `total` is None unless it was asked for."""

    body: bytes
    rows: int
    total: int | None


class MutationResult(NamedTuple):
    """What a function of a template answered; `body` is its whole JSON document."""

    success: bool | None
    code: str | None
    body: bytes


async def read_list(
    connection: asyncpg.Connection,
    caller: Caller,
    schema: str,
    api_version: int,
    resource: str,
    listing: Listing,
) -> Page:
    """The `data` documents that `listing` asks for."""
    shape, limit, offset, keys, values = listing
    statement = list_statement(schema, api_version, resource, shape)
    picked = (keys,) if shape.picked else ()
    row = await connection.fetchval(statement, *caller, limit, offset, *picked, *values)
    return Page(row[0], row[1], row[2])


async def read_one(
    connection: asyncpg.Connection, caller: Caller, schema: str, api_version: int, resource: str, id_: UUID
) -> bytes | None:
    """One `data` document, or None."""
    body: bytes | None = await connection.fetchval(one_statement(schema, api_version, resource), *caller, id_)
    return body


async def read_deprecations(connection: asyncpg.Connection, caller: Caller, api_version: int) -> bytes | None:
    """The register of an API version as a JSON array; None when the home does not serve the version any more."""
    body: bytes | None = await connection.fetchval(DEPRECATIONS, *caller, api_version)
    return body


async def call_function(
    connection: asyncpg.Connection,
    caller: Caller,
    schema: str,
    api_version: int,
    function: str,
    document: str,
    *,
    read_only: bool = False,
    key: str | None = None,
) -> MutationResult:
    """Call a function of the template with `document`, the text of a JSON object, and commit.

    A repetition with the same `key` of the same user answers what the first call answered. The home has to keep keys,
    and a function that is only read has no use for one.
    """
    if key is not None:
        row = await connection.fetchrow(call_once_statement(schema, api_version, function), *caller, document, key)
    else:
        row = await connection.fetchrow(call_statement(schema, api_version, function, read_only), *caller, document)
    assert row is not None  # the gate answers with one row or raises
    return MutationResult(row[0], row[1], row[2])


def bind(connection: Connection, caller: Caller, *, read_only: bool = False) -> None:
    """Bind the transaction that `connection` begins; for SQLAlchemy's event `begin`, which comes for each one."""
    connection.exec_driver_sql(BIND, (*caller, read_only))


@lru_cache(maxsize=8192)
def list_statement(schema: str, api_version: int, resource: str, shape: Shape) -> str:
    view = _object(schema, api_version, resource)
    conditions = " AND ".join(("tenant_id = $1::uuid", *_conditions(shape)))
    return _LIST.format(
        gate=_READ,
        document=_PICKED if shape.picked else "data",
        total=_TOTAL.format(view=view, conditions=conditions) if shape.counted else "NULL::bigint",
        view=view,
        conditions=conditions,
        order=", ".join(map(_sorted_by, shape.order)),
    )


@lru_cache(maxsize=8192)
def one_statement(schema: str, api_version: int, resource: str) -> str:
    return _ONE.format(gate=_READ, view=_object(schema, api_version, resource))


@lru_cache(maxsize=8192)
def call_statement(schema: str, api_version: int, function: str, read_only: bool = False) -> str:
    return _CALL.format(gate=_READ if read_only else _WRITE, function=_object(schema, api_version, function))


@lru_cache(maxsize=8192)
def call_once_statement(schema: str, api_version: int, function: str) -> str:
    name = _object(schema, api_version, function).replace("'", "''")
    return _CALL_ONCE.format(gate=_WRITE, function=f"'{name}'")


def _object(schema: str, api_version: int, name: str) -> str:
    return f"{_quoted(f'{schema}__api_v{api_version}')}.{_quoted(name)}"


def _conditions(shape: Shape) -> Iterator[str]:
    parameter = 8 if shape.picked else 7
    for column, operator, type_, negated, state in shape.conditions:
        if state is not None:
            text = f"{_quoted(column)} IS {_IS[state]}"
        elif operator == "in":
            text = f"{_quoted(column)} = ANY (${parameter}::text[]::{type_}[])"
        else:
            text = f"{_quoted(column)} {_COMPARISONS[operator]} ${parameter}::text::{type_}"
        parameter += state is None
        yield f"NOT ({text})" if negated else text


def _sorted_by(sort: Sort) -> str:
    nulls = "" if sort.nulls_first is None else " NULLS FIRST" if sort.nulls_first else " NULLS LAST"
    return _quoted(sort.column) + (" DESC" if sort.descending else "") + nulls


def _quoted(identifier: str) -> str:
    if "\0" in identifier:
        raise ValueError("an identifier holds a NUL")
    return '"' + identifier.replace('"', '""') + '"'
