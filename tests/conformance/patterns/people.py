"""Four people of the reference application, and who looks at them with which roles."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

from tests.conformance.world import Member, World

U1, U2, SUSPENDED, UNLISTED = (UUID(int=0x5000 + number) for number in range(4))

PEOPLE: dict[UUID, dict[str, Any]] = {
    U1: {"name": "Una", "phone": "111-1111", "private_notes": "n1-secret"},
    U2: {"name": "Udo", "phone": "222-2222", "private_notes": "n2-secret"},
    SUSPENDED: {"name": "Sue", "phone": "333-3333", "private_notes": "n3-secret", "suspended": True},
    UNLISTED: {"name": "Ulf", "phone": "444-4444", "private_notes": "n4-secret", "listed": False},
}

CARD = {"id", "name", "avatar_url", "bio", "created_at"}

ROLES: dict[str, tuple[UUID, list[str]]] = {  # class of viewer → who looks at U2, and with which roles
    "public": (U1, []),
    "self": (U2, []),
    "moderator": (U1, ["moderator"]),
    "admin": (U1, ["admin"]),
}


async def add_people(connection: asyncpg.Connection) -> None:
    for id_, person in PEOPLE.items():
        columns = {"id": id_, "email": f"{person['name']}@people.example".lower(), **person}
        values = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        await connection.execute(f"INSERT INTO tb_user ({', '.join(columns)}) VALUES ({values})", *columns.values())
    project = await connection.fetchval("INSERT INTO tb_project (name, owner_id) VALUES ('p', $1) RETURNING id", U2)
    for user in (U1, U2):
        await connection.execute("INSERT INTO tb_project_member (project_id, user_id) VALUES ($1, $2)", project, user)


async def look(connection: asyncpg.Connection, member: Member, viewer: UUID, roles: Sequence[str] = ()) -> None:
    """Continue as another caller of the tenant."""
    await connection.execute("SELECT tenancy.set_tenant_context($1, $2, roles => $3)", member.id, viewer, list(roles))


@asynccontextmanager
async def directory(world: World, viewer: UUID = U1, roles: Sequence[str] = ()) -> AsyncIterator[asyncpg.Connection]:
    """A transaction of a caller among the four people, undone afterwards, with API version 2 on its path."""
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await look(connection, world.a, viewer, roles)
            schema = world.a.schema
            await connection.execute(f'SET LOCAL search_path = "{schema}__api_v2", "{schema}", extensions, pg_temp')
            await add_people(connection)
            yield connection
        finally:
            await transaction.rollback()


async def person(connection: asyncpg.Connection, id_: UUID) -> dict[str, Any] | None:
    found = await connection.fetchval("SELECT data FROM people WHERE id = $1", id_)
    return None if found is None else dict(json.loads(found))


async def update(connection: asyncpg.Connection, **fields: object) -> dict[str, Any]:
    given = json.dumps({name: str(value) if isinstance(value, UUID) else value for name, value in fields.items()})
    return dict(json.loads(await connection.fetchval("SELECT update_person($1)", given)))


def matrix(world: World) -> dict[str, set[str]]:
    return {group: set(viewers) for group, viewers in world.template.manifest.visibility["people"].items()}


def fields_of(group: str) -> set[str]:
    return CARD if group == "card" else {group}
