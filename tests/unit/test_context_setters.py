"""Only `pools/gate.py` and two files of schema `tenancy` set a tenant context."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import control_plane
from control_plane.settings import shipped

PACKAGE = Path(control_plane.__file__).parent

SETTER = re.compile(
    r"""
      set_tenant_context \s* \( (?! uuid )          # a call; `(uuid, …)` is its signature in a GRANT
    | set_config \s* \( \s* (?! ' (?! app\. ) )     # of app.…, or of a name that is computed
    | \b SET \s+ ((LOCAL|SESSION) \s+)? "? app"? \. # also ALTER ROLE … SET
    | \A app\. \w+ \Z                               # a name by itself, for server_settings
    | -c \s* app\.                                  # in `options` of a connection string
    """,
    re.IGNORECASE | re.VERBOSE,
)


def strings(source: str) -> Iterator[str]:
    """The string constants of a module, without its docstrings."""
    tree = ast.parse(source)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def sets_context(path: Path) -> bool:
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return any(SETTER.search(each) for each in strings(source))
    return SETTER.search(re.sub(r"--[^\n]*", "", source)) is not None


def setters(directory: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob(pattern) if sets_context(path)}


@pytest.mark.parametrize(
    "source",
    [
        "x = 'SELECT tenancy.set_tenant_context($1, $2)'",
        "x = f'SELECT {schema}.set_tenant_context({tenant})'",
        "x = \"SELECT set_config('app.current_tenant_id', $1, true)\"",
        "x = 'SELECT set_config($1, $2, true)'",
        "x = 'SET LOCAL app.current_tenant_id = 1'",
        "x = 'ALTER ROLE r SET app.current_tenant_id = 1'",
        "connect(server_settings={'app.current_tenant_id': tenant})",
        "connect('postgresql:///?options=-c app.current_tenant_id=1')",
    ],
)
def test_the_scan_sees_a_setter(tmp_path: Path, source: str) -> None:
    path = tmp_path / "setter.py"
    path.write_text(source, encoding="utf-8")
    assert sets_context(path)


@pytest.mark.parametrize(
    "source",
    [
        '"""Calls set_tenant_context(tenant)."""',
        "x = \"SELECT current_setting('app.current_tenant_id', true)\"",
        "x = \"SELECT set_config('search_path', $1, true)\"",
    ],
)
def test_the_scan_lets_readers_and_words_pass(tmp_path: Path, source: str) -> None:
    path = tmp_path / "reader.py"
    path.write_text(source, encoding="utf-8")
    assert not sets_context(path)


def test_only_the_gate_sets_a_tenant_context() -> None:
    # Tests of applications, and the check of a pooler, leave one behind and look whether it reaches anybody.
    assert setters(PACKAGE, "*.py") == {"pools/gate.py", "testing/boundaries.py", "isolation/pooler.py"}


def test_only_the_sessions_of_the_library_and_what_calls_smoke_files_bind_transactions() -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\bgate\.(bind|BIND)\b|gate import .*\b(bind|BIND)\b", path.read_text(encoding="utf-8"))
    }
    assert users == {"pools/sessions.py", "pools/connections.py", "migrator/rehearsal.py", "migrator/smoke.py"}


def test_in_sql_only_tenancy_s_own_functions_set_one() -> None:
    assert setters(shipped("sql"), "*.sql") == {
        "tenancy/0001_tenancy/2_context.sql",
        "tenancy/0001_tenancy/4_support.sql",  # names a support session, which is not a tenant
        "tenancy/0001_tenancy/6_routing.sql",
        "tenancy/0002_library/5_cache.sql",  # computes as somebody without roles, and puts the caller back
    }
    assert setters(shipped("tenant_templates"), "*.sql") == set()
