"""A legacy database whose users an ORM writes: a role that logs in."""

from __future__ import annotations

import json
import re
from typing import Any

from control_plane.adoption import cutover
from control_plane.adoption.cutover import NewEntity, Outcome
from control_plane.adoption.records import AdoptionRecord
from control_plane.pools.databases import Databases
from tests.support.legacy import Legacy

ACTOR = "tests"

WRITES = (
    "INSERT INTO users (email, name, hash) VALUES ('x@example.com', 'X', 'h')",
    "UPDATE users SET name = 'X' WHERE id = 1",
    "DELETE FROM users WHERE id = 2",
    "TRUNCATE users CASCADE",
)

SCHEMA = """
CREATE SCHEMA audit;
CREATE TABLE users (
    id bigserial PRIMARY KEY,
    email varchar(40) NOT NULL UNIQUE,
    name text NOT NULL CHECK (name <> ''),
    hash text NOT NULL,
    credit numeric(10, 2) NOT NULL DEFAULT 0,
    joined timestamptz NOT NULL DEFAULT '2026-01-01 00:00:00+00',
    manager_id bigint REFERENCES users (id),
    tags text[],
    kind text GENERATED ALWAYS AS (CASE WHEN credit > 0 THEN 'paying' ELSE 'free' END) STORED
);
INSERT INTO users (email, name, hash, credit)
SELECT 'u' || n || '@example.com', 'User ' || n, md5(n::text), n % 7 FROM generate_series(1, 1000) AS n;
"""


class Orm:
    """The legacy database, its adoption, and shorthands for what a test does to the entity `user`."""

    def __init__(self, databases: Databases, legacy: Legacy, adoption: AdoptionRecord) -> None:
        self.databases = databases
        self.legacy = legacy
        self.adoption = adoption

    async def start(self, **choices: Any) -> Outcome:
        new = NewEntity("user", "users", choices.pop("orm_role", self.legacy.orm_role), **choices)
        return await cutover.start(self.databases, "shop", new, actor=ACTOR)

    async def advance(self) -> Outcome:
        return await cutover.advance(self.databases, "shop", "user", actor=ACTOR)

    async def back(self) -> Outcome:
        return await cutover.back(self.databases, "shop", "user", actor=ACTOR)

    async def check(self) -> Outcome:
        return await cutover.check(self.databases, "shop", "user")

    async def at(self, stage: str) -> None:
        reached = (await self.start()).entity.stage
        while reached != stage:
            reached = (await self.advance()).entity.stage

    async def stage(self) -> str:
        return (await cutover.status(self.databases, "shop", "user"))[0].stage

    async def call(self, function: str, **given: Any) -> dict[str, Any]:
        """As the ORM's role, which is the application's too unless a test says otherwise."""
        async with self.legacy.orm() as connection:
            answer = await connection.fetchval(f"SELECT adoption.fn_{function}_user($1)", json.dumps(given))
        result: dict[str, Any] = json.loads(answer)
        return result

    async def write(self, statement: str) -> None:
        async with self.legacy.orm() as connection:
            await connection.execute(f"BEGIN; {statement}; ROLLBACK")

    async def privileges(self) -> set[tuple[Any, ...]]:
        """Everything that is granted on the table and its columns."""
        async with self.legacy.owner() as connection:
            rows = await connection.fetch("""
                SELECT NULL AS attname, a.* FROM pg_class, aclexplode(coalesce(relacl, acldefault('r', relowner))) AS a
                WHERE oid = 'users'::regclass
                UNION ALL
                SELECT attname, a.* FROM pg_attribute, aclexplode(attacl) AS a WHERE attrelid = 'users'::regclass
            """)
        return {tuple(row) for row in rows}


async def corrupt(orm: Orm, before: str, after: str) -> None:
    """Change the mapping of one field in the view."""
    async with orm.legacy.owner() as connection:
        # PostgreSQL 15 names the table before each column.
        definition = re.sub(r"\bt\.", "", await connection.fetchval("SELECT pg_get_viewdef('adoption.v_users')"))
        assert before in definition
        await connection.execute(
            f"SET ROLE {orm.adoption.reader_role};"
            f"CREATE OR REPLACE VIEW adoption.v_users WITH (security_invoker = true) AS "
            + definition.replace(before, after)
        )
