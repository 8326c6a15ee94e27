"""`python -m benchmarks.rivals.alembic_loop`: a `Work` as JSON on standard input, the seconds it took on the output."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path

from alembic import command
from alembic.config import Config
from pydantic import BaseModel


class Work(BaseModel):
    """`url` is SQLAlchemy's; `sql` is what the revision runs in each of the schemas."""

    url: str
    schemas: list[str]
    sql: str


def main() -> None:
    work = Work.model_validate_json(sys.stdin.read())
    config = Config(attributes={"sql": work.sql, "url": work.url})
    config.set_main_option("script_location", str(Path(__file__).parent))
    began = time.perf_counter()
    for schema in work.schemas:
        config.cmd_opts = Namespace(x=[f"tenant={schema}"])
        command.upgrade(config, "head")
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
