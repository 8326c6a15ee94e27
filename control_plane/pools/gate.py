"""The gated statement: tenant context, query and commit in one round trip. Nothing else sets the tenant context.

`CASE` fixes the order of evaluation, and an uncorrelated sub-select is an InitPlan that runs when it is first asked
for. So nothing of a tenant is read before `set_tenant_context` has agreed, which raises and never answers false.
A CTE or a join gives no such order: the planner may scan first, under whatever context the session has.

The text is constant per (schema, API version, object), so every connection prepares it once. Identifiers come from the
registry and the template only, and are quoted; every value is a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import Connection

_GATE = "tenancy.set_tenant_context($1::uuid, $2::uuid, $3::bigint, {read_only}, $4::text[])"
_READ = _GATE.format(read_only="true")
_WRITE = _GATE.format(read_only="false")

# $5 limit, $6 offset. The inner LIMIT keeps the aggregate's input in order.
_LIST = """
SELECT CASE WHEN {gate} THEN (
    SELECT convert_to('[' || coalesce(string_agg(data::text, ','), '') || ']', 'UTF8')
    FROM (SELECT data FROM {view} WHERE tenant_id = $1::uuid ORDER BY {order} LIMIT $5::bigint OFFSET $6::bigint) page
) END"""

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

BIND = "SELECT tenancy.set_tenant_context($1::uuid, $2::uuid, $3::bigint, $5::boolean, $4::text[])"


class Caller(NamedTuple):
    """Who asks, as the gate's first four parameters."""

    tenant_id: UUID
    user_id: UUID | None
    epoch: int | None
    roles: Sequence[str]


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
    order: tuple[str, ...],
    limit: int,
    offset: int = 0,
) -> bytes:
    """A JSON array of the `data` documents, in `order`."""
    statement = list_statement(schema, api_version, resource, order)
    body: bytes = await connection.fetchval(statement, *caller, limit, offset)
    return body


async def read_one(
    connection: asyncpg.Connection, caller: Caller, schema: str, api_version: int, resource: str, id_: UUID
) -> bytes | None:
    """One `data` document, or None."""
    body: bytes | None = await connection.fetchval(one_statement(schema, api_version, resource), *caller, id_)
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
def list_statement(schema: str, api_version: int, resource: str, order: tuple[str, ...]) -> str:
    return _LIST.format(gate=_READ, view=_object(schema, api_version, resource), order=_order_by(order))


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


def _order_by(order: tuple[str, ...]) -> str:
    return ", ".join(_quoted(column[1:]) + " DESC" if column.startswith("-") else _quoted(column) for column in order)


def _quoted(identifier: str) -> str:
    if "\0" in identifier:
        raise ValueError("an identifier holds a NUL")
    return '"' + identifier.replace('"', '""') + '"'
