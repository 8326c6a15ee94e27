"""The gated statement: tenant context, query and commit in one round trip. Nothing else sets the tenant context.

`CASE` fixes the order of evaluation, and an uncorrelated sub-select is an InitPlan that runs when it is first asked
for. So nothing of a tenant is read before `set_tenant_context` has agreed, which raises and never answers false.
A CTE or a join gives no such order: the planner may scan first, under whatever context the session has.

The text is constant per (schema, API version, object, shape of the question), so every connection prepares it once.
Identifiers and types come from the registry and the template only, and identifiers are quoted; every value is a
parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import Connection

from control_plane.pools.listing import Known

_GATE = "tenancy.set_tenant_context($1::uuid, $2::uuid, $3::bigint, {read_only}, $4::text[])"
READ = _GATE.format(read_only="true")
_WRITE = _GATE.format(read_only="false")
_WHO = "tenancy.current_tenant_id(), tenancy.current_user_id(), tenancy.current_roles()"

# $5 id; with a tag also $6 what is asked and $7 the known tags. The document of a known tag is not even written.
_ONE = """
SELECT CASE WHEN {gate} THEN (
    SELECT {document} FROM {view} WHERE tenant_id = $1::uuid AND id = $5::uuid
) END"""
_TAGGED = "ROW(CASE WHEN {fresh} THEN NULL ELSE {document} END, {tag})"

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

DEPRECATIONS = _DEPRECATIONS.format(gate=READ)
BIND = "SELECT tenancy.set_tenant_context($1::uuid, $2::uuid, $3::bigint, $5::boolean, $4::text[])"


class Caller(NamedTuple):
    """Who asks, as the gate's first four parameters."""

    tenant_id: UUID
    user_id: UUID | None
    epoch: int | None
    roles: Sequence[str]


class Document(NamedTuple):
    """`body` is None when its `tag` is one that the caller knows."""

    body: bytes | None
    tag: str | None = None


class MutationResult(NamedTuple):
    """What a function of a template answered; `body` is its whole JSON document."""

    success: bool | None
    code: str | None
    body: bytes


async def read_one(
    connection: asyncpg.Connection,
    caller: Caller,
    schema: str,
    api_version: int,
    resource: str,
    id_: UUID,
    *,
    version: str | None = None,
    known: Known | None = None,
) -> Document | None:
    """The one document with this id, or None. With `version`, the column that holds it, the document has a tag."""
    statement = one_statement(schema, api_version, resource, version)
    if version is None:
        body = await connection.fetchval(statement, *caller, id_)
        return None if body is None else Document(body)
    row = await connection.fetchval(statement, *caller, id_, *(known or Known()))
    return None if row is None else Document(*row)


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
def one_statement(schema: str, api_version: int, resource: str, version: str | None = None) -> str:
    document = "textsend(data::text)"
    if version is not None:
        tag = tag_of("$6::text", "id", quoted(version))
        document = _TAGGED.format(fresh=fresh_tag(tag, "$7"), document=document, tag=tag)
    return _ONE.format(gate=READ, document=document, view=quoted_object(schema, api_version, resource))


@lru_cache(maxsize=8192)
def call_statement(schema: str, api_version: int, function: str, read_only: bool = False) -> str:
    return _CALL.format(gate=READ if read_only else _WRITE, function=quoted_object(schema, api_version, function))


@lru_cache(maxsize=8192)
def call_once_statement(schema: str, api_version: int, function: str) -> str:
    name = quoted_object(schema, api_version, function).replace("'", "''")
    return _CALL_ONCE.format(gate=_WRITE, function=f"'{name}'")


def quoted_object(schema: str, api_version: int, name: str) -> str:
    return f"{quoted(f'{schema}__api_v{api_version}')}.{quoted(name)}"


def tag_of(*told: str) -> str:
    """The expression for a tag that differs for whoever asks and for whatever is `told`.

    The roles are those in effect, which may be others than the token's.
    """
    return f"encode(sha256(convert_to(jsonb_build_array({_WHO}, {', '.join(told)})::text, 'UTF8')), 'hex')"


def fresh_tag(tag: str, known: str) -> str:
    """The condition that the parameter `known`, a list, has `tag`, or "*"."""
    return f"({tag} = ANY ({known}::text[]) OR '*' = ANY ({known}::text[]))"


def quoted(identifier: str) -> str:
    if "\0" in identifier:
        raise ValueError("an identifier holds a NUL")
    return '"' + identifier.replace('"', '""') + '"'
