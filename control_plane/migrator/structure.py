"""What stands in a home, object by object, as its catalogue tells it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from control_plane.settings import shipped

STRUCTURE = (shipped("sql") / "migrator" / "structure.sql").read_text("utf-8")
_NAMES = """
SELECT version, schema_name, tenant_id, ARRAY(SELECT role_name FROM tenancy.home_roles WHERE home_id = id) AS logins
FROM tenancy.homes WHERE id = $1"""

LOGIN = "<login>"  # in aspects: the home's login role
_OF_RELATION = {"column", "constraint", "policy", "trigger", "rule"}  # have no name without it
# The catalogues are large and few of their rows are those of a home: anything but nested loops reads them whole.
_SESSION = """
SET LOCAL search_path = pg_catalog; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off; SET LOCAL work_mem = '64MB'; SET LOCAL lock_timeout = '{}ms'"""


class Key(NamedTuple):
    """One object of a home. `schema` is 'base' or that of an API; `relation` is what a part belongs to, else ''."""

    kind: str
    schema: str
    relation: str
    name: str

    @property
    def object(self) -> str:
        """For people: tb_user, tb_user.email, api_v1.users; a schema is named alone."""
        if self.kind == "schema":
            return self.schema
        name = f"{self.relation}.{self.name}" if self.kind in _OF_RELATION else self.name
        return name if self.schema == "base" else f"{self.schema}.{name}"

    def __str__(self) -> str:
        return f"the {self.kind.replace('-', ' ')} {self.object}"


Aspects = Mapping[str, Any]  # by name: text, number, truth, list, or {grantee: [privilege]}


@dataclass(frozen=True, slots=True)
class Structure:
    """`objects` of a home whose names and ids stand in them as they are; `version` is that of its stamp."""

    version: int
    schema_name: str
    tenant_id: UUID | None
    logins: Sequence[str]
    objects: Mapping[Key, Aspects]
    keys: Mapping[str, Key]  # by address

    def plain(self) -> dict[Key, Aspects]:
        """The objects with placeholders for what differs by home: equal homes have equal ones."""
        return _renamed(self.objects, self.schema_name, "<home>", self.tenant_id, "<tenant>")

    def moved(self, schema_name: str, tenant_id: UUID | None) -> dict[Key, Aspects]:
        """The objects as they would stand in another home."""
        return _renamed(self.objects, self.schema_name, schema_name, self.tenant_id, str(tenant_id))


@asynccontextmanager
async def reading(connection: asyncpg.Connection, lock_timeout: float) -> AsyncIterator[None]:
    """A transaction, or part of one, in which structures are read and nothing else; `lock_timeout` in seconds.

    To print a definition locks its tables, which only a change of them would wait for. The locks end with the block.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(_SESSION.format(int(lock_timeout * 1000)))
        yield
    finally:
        await transaction.rollback()


async def read_structure(connection: asyncpg.Connection, home_id: UUID) -> Structure | None:
    """None when there is no such home. Within `reading`."""
    names = await connection.fetchrow(_NAMES, home_id)
    if names is None:
        return None
    objects: dict[Key, Aspects] = {}
    keys: dict[str, Key] = {}
    for row in await connection.fetch(STRUCTURE, str(home_id)):
        name = row["name"].replace(names["schema_name"], "<home>")  # the types of a function's arguments
        key = Key(row["kind"], row["schema"], row["relation"], name)
        aspects = json.loads(row["aspects"] or "{}") | {
            "owner": row["owner"],
            "grants": json.loads(row["grants"] or "{}"),
        }
        objects[key] = {aspect: value for aspect, value in aspects.items() if value is not None}
        keys[row["address"]] = key
    return Structure(objects=objects, keys=keys, **names)


def _renamed(
    objects: Mapping[Key, Aspects], schema: str, new_schema: str, tenant: UUID | None, new_tenant: str
) -> dict[Key, Aspects]:
    def rename(value: Any) -> Any:
        if isinstance(value, str):
            value = value.replace(schema, new_schema)
            return value if tenant is None else value.replace(str(tenant), new_tenant)
        if isinstance(value, list):
            return [rename(each) for each in value]
        if isinstance(value, dict):
            return {key: rename(each) for key, each in value.items()}
        return value

    return {key: rename(aspects) for key, aspects in objects.items()}
