"""`python -m benchmarks.rivals.alembic_loop`: a `Work` as JSON on standard input, the seconds it took on the output."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from pydantic import BaseModel
from sqlalchemy import create_engine, text


class Work(BaseModel):
    """`sql` is what the revision runs in each of the schemas."""

    dsn: str
    schemas: list[str]
    sql: str


def main() -> None:
    work = Work.model_validate_json(sys.stdin.read())
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(work.dsn))
    config = Config(attributes={"sql": work.sql})
    config.set_main_option("script_location", str(Path(__file__).parent))
    engine.connect().close()
    began = time.perf_counter()
    for schema in work.schemas:
        with engine.connect() as connection:
            connection.execute(text(f'SET search_path = "{schema}", extensions, pg_temp'))
            connection.execute(text("SET ROLE cp_owner"))
            connection.commit()
            config.attributes.update(connection=connection, schema=schema)
            command.upgrade(config, "head")
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
