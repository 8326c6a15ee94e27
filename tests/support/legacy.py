"""An application's database from before us: tables of its own making, an ORM that logs in, and no idea of tenants."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from control_plane.embedded.binaries import binary
from control_plane.pools.connect import connect
from tests.support.servers import Server, dsn_with

WIDE = [f"field_{number:02}" for number in range(1, 48)]

SCHEMA = f"""
CREATE TYPE status AS ENUM ('new', 'good', 'gone');
CREATE TABLE customers (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email text NOT NULL UNIQUE,
    "order" integer,
    "Mixed ""Case"" \\ name" text,
    status status NOT NULL DEFAULT 'new',
    born date,
    seen_at timestamptz NOT NULL DEFAULT now(),
    balance numeric(12, 2) NOT NULL DEFAULT 0 CHECK (balance >= 0),
    avatar bytea,
    tags text[] NOT NULL DEFAULT '{{}}',
    settings jsonb,
    data text,
    password_hash text NOT NULL DEFAULT 'x',
    {", ".join(f"{name} text" for name in WIDE)}
);
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers (id),
    note varchar(20)
);
CREATE TABLE lines (
    order_id bigint REFERENCES orders (id),
    position integer,
    serial_number bigserial,
    what text,
    PRIMARY KEY (order_id, position)
);
CREATE INDEX ON lines (order_id);
COMMENT ON TABLE customers IS 'there before us';
"""


@dataclass
class Legacy:
    """`dsn` is of the role that owns the tables; `orm` of the role that the application logs in as."""

    dsn: str
    orm_role: str
    orm_password: str

    @property
    def orm_dsn(self) -> str:
        return dsn_with(self.dsn, user=self.orm_role, password=self.orm_password)

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[asyncpg.Connection]:
        opened = await connect(self.dsn, application_name="tests legacy owner")
        try:
            yield opened
        finally:
            await opened.close()

    @asynccontextmanager
    async def orm(self) -> AsyncIterator[asyncpg.Connection]:
        opened = await connect(self.orm_dsn, application_name="tests orm")
        try:
            yield opened
        finally:
            await opened.close()

    async def execute(self, sql: str) -> None:
        async with self.owner() as connection:
            await connection.execute(sql)

    def dump(self, *options: str) -> str:
        """What pg_dump says of the whole database, without what is new each time."""
        environment = {**os.environ, "PGDATABASE": self.dsn}
        run = subprocess.run(
            [binary("pg_dump"), "--dbname", self.dsn, *options],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return re.sub(r"(?m)^\\(un)?restrict .*$", "", run.stdout)


async def create_legacy(server: Server, installation_id: UUID, schema: str = SCHEMA) -> Legacy:
    """The database with 30 customers, 60 orders and 60 lines, if `schema` is the one above."""
    name = await server.create_database()
    legacy = Legacy(server.dsn_for(name), f"cp_{installation_id.hex[:8]}_orm", "secret-of-the-orm")
    async with legacy.owner() as connection:
        if not await connection.fetchval("SELECT to_regrole($1) IS NOT NULL", legacy.orm_role):
            await connection.execute(f"CREATE ROLE {legacy.orm_role} LOGIN PASSWORD '{legacy.orm_password}'")
            await connection.execute(f"GRANT {legacy.orm_role} TO CURRENT_USER")
        await connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO {legacy.orm_role}')
        await connection.execute(schema)
        await connection.execute(f"GRANT USAGE ON SCHEMA public TO {legacy.orm_role}")
        await connection.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {legacy.orm_role}"
        )
        await connection.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {legacy.orm_role}")
        if schema is SCHEMA:
            await connection.execute(_ROWS)
    return legacy


_ROWS = """
INSERT INTO customers (id, email, "order", born, seen_at, balance, avatar, tags, settings, field_01)
SELECT md5('customer' || n)::uuid, 'c' || n || '@example.com', n, date '2000-01-01' + n,
       '2026-01-01 12:00:00.25+02'::timestamptz + n * interval '1 hour', n * 1.10, decode(md5(n::text), 'hex'),
       ARRAY['a', n::text], jsonb_build_object('theme', n), 'field ' || n
FROM generate_series(1, 30) AS n;
INSERT INTO orders (customer_id, note) SELECT md5('customer' || (n % 30 + 1))::uuid, 'order ' || n
FROM generate_series(1, 60) AS n;
INSERT INTO lines (order_id, position, what) SELECT id, 1, 'thing' FROM orders;
"""
