"""A sound application with notes of the starter template, and what is needed to make it leak."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from fastapi import APIRouter, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import text

from control_plane.registry import tenants
from control_plane.settings import Settings
from control_plane.tenancy import TenantSession, install_tenancy
from control_plane.testing import Installation, TenancyContract, Tenant

LIST = text("SELECT id, title FROM tb_note ORDER BY created_at DESC, id")
FIND = text("SELECT id, title FROM tb_note WHERE title LIKE '%' || :q || '%'")
ONE = text("SELECT id, title FROM tb_note WHERE id = :id")
RENAME = text("UPDATE tb_note SET title = :title WHERE id = :id RETURNING id, title")
ADD = text("INSERT INTO tb_note (title) VALUES (:title) RETURNING id, title")
DELETE = text("DELETE FROM tb_note WHERE id = :id RETURNING id")

Endpoint = Callable[..., Any]


class New(BaseModel):
    title: str


class NotesContract(TenancyContract):
    def fill(self, tenant: Tenant, marker: str) -> dict[str, Any]:
        note = tenant.client.post("/notes", json={"title": marker}).raise_for_status().json()
        return {"note_id": note["id"], "q": marker}


class WholeContract(NotesContract):
    bodies = {"PUT /notes/{note_id}": {"title": "theirs"}}  # noqa: RUF012


async def list_notes(session: TenantSession) -> list[dict[str, Any]]:
    return [dict(row) for row in (await session.execute(LIST)).mappings()]


async def show_note(note_id: UUID, session: TenantSession) -> dict[str, Any]:
    return _found((await session.execute(ONE, {"id": note_id})).mappings().one_or_none())


async def find_notes(q: str, session: TenantSession) -> dict[str, Any]:
    rows = (await session.execute(FIND, {"q": q})).mappings()
    return {"asked": q, "found": [dict(row) for row in rows]}


async def add_note(new: New, session: TenantSession) -> dict[str, Any]:
    return dict((await session.execute(ADD, {"title": new.title})).mappings().one())


async def rename_note(note_id: UUID, new: New, session: TenantSession) -> dict[str, Any]:
    return _found((await session.execute(RENAME, {"id": note_id, "title": new.title})).mappings().one_or_none())


async def delete_note(note_id: UUID, session: TenantSession) -> None:
    _found((await session.execute(DELETE, {"id": note_id})).mappings().one_or_none())


ENDPOINTS: dict[str, Endpoint] = {
    "GET /notes": list_notes,
    "GET /notes/{note_id}": show_note,
    "GET /search": find_notes,
    "POST /notes": add_note,
    "PUT /notes/{note_id}": rename_note,
    "DELETE /notes/{note_id}": delete_note,
}


def notes(settings: Settings, changed: dict[str, Endpoint] | None = None) -> FastAPI:
    """The application, with other endpoints or more; only what begins with /notes is in a router of its own."""
    app, router = FastAPI(), APIRouter()
    install_tenancy(app, settings)
    for name, endpoint in (ENDPOINTS | (changed or {})).items():
        method, _, path = name.partition(" ")
        (router if path.startswith("/notes") else app).add_api_route(path, endpoint, methods=[method])
    app.include_router(router)
    return app


class Owner:
    """An engine of the application's own, under a role that sees all rows of the common tables."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    async def run(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        databases = self._installation.plane.databases
        async with databases.registry() as session:
            _, home, cluster = await tenants.get(session, "alpha-shared")
        async with databases.admin(cluster, home.database, purpose="leak") as connection, connection.transaction():
            await connection.execute(f'SET LOCAL ROLE cp_owner; SET LOCAL search_path = "{home.schema_name}"')
            return list(await connection.fetch(statement, *values))


def _found(row: Any) -> dict[str, Any]:
    if row is None:
        raise HTTPException(404)
    return dict(row)


def some_id() -> str:
    return str(uuid4())
