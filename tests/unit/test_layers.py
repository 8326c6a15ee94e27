"""What import-linter cannot say: who opens connections, and who reads the environment."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import control_plane

PACKAGE = Path(control_plane.__file__).parent

OPENERS = {
    "asyncpg.connect",
    "asyncpg.create_pool",
    "psycopg.connect",
    "psycopg.AsyncConnection.connect",
    "psycopg_pool.AsyncConnectionPool",
    "sqlalchemy.create_engine",
    "sqlalchemy.engine_from_config",
    "sqlalchemy.ext.asyncio.create_async_engine",
    "sqlalchemy.ext.asyncio.async_engine_from_config",
}
READERS = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv"}


def names_used(source: str) -> set[str]:
    """The full dotted name of everything that a module takes from an import: `asyncpg.connect`, `os.environ`."""
    tree = ast.parse(source)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                imported[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return set(imported.values()) | {name for node in ast.walk(tree) for name in _dotted(node, imported)}


def _dotted(node: ast.AST, imported: dict[str, str]) -> Iterator[str]:
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    if attributes and isinstance(node, ast.Name) and node.id in imported:
        yield ".".join([imported[node.id], *reversed(attributes)])


def users_of(names: set[str]) -> set[str]:
    return {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if names & names_used(path.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import asyncpg\nasyncpg.connect('')", "asyncpg.connect"),
        ("import asyncpg as pg\nasync def f(): await pg.create_pool('')", "asyncpg.create_pool"),
        ("from asyncpg import connect as c", "asyncpg.connect"),
        ("import sqlalchemy.orm\nsqlalchemy.create_engine('')", "sqlalchemy.create_engine"),
        ("from os import environ", "os.environ"),
        ("def f():\n    import os\n    return os.environ['A']", "os.environ"),
    ],
)
def test_the_scan_sees_a_name_however_it_was_imported(source: str, name: str) -> None:
    assert name in names_used(source)


def test_only_pools_opens_connections() -> None:
    users = users_of(OPENERS)
    assert users
    assert not {user for user in users if not user.startswith("pools/")}


def test_only_settings_and_the_cp_script_read_the_environment() -> None:
    assert users_of(READERS) <= {"settings.py", "command.py"}


def test_only_a_lint_loads_the_parser_and_only_what_serves_the_web_framework() -> None:
    """Nor does a command load what few commands need."""
    heavy = ("postgast", "fastapi", "alembic", "procrastinate", "httpx")
    modules = "sys, control_plane.cli.tenant, control_plane.cli.adopt, control_plane.cli.migrate_runs"
    code = f"import {modules}; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert loaded.stdout == "[]\n"


def test_the_package_is_light_to_import() -> None:
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    assert not names_used(source)
