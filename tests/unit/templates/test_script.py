"""What a compiled script knows of itself."""

from __future__ import annotations

import pytest

from control_plane.templates.script import Part, Script


def script(*sql: str) -> Script:
    return Script(
        "t", 1, 2, "", tuple(Part(f"{number}.sql", each, None) for number, each in enumerate(sql)), (), (1,), {}
    )


@pytest.mark.parametrize(
    ("sql", "replaces"),
    [
        ("ALTER TABLE tb_user ADD COLUMN bio text", False),
        (
            "CREATE TABLE tb_user (tenant_id uuid DEFAULT tenancy.current_tenant_id());\n"
            "SELECT tenancy.protect_table('tb_user')",
            False,
        ),
        ("CREATE VIEW v_user WITH (security_invoker = true) AS SELECT tenant_id FROM tb_user", False),
        ("CREATE OR REPLACE FUNCTION f() RETURNS integer RETURN 1", True),
        ("create or replace procedure p() begin atomic end", True),
        ("DROP ROUTINE f", True),
        ("SELECT tenancy.append_only('tb_user')", True),
        ('SELECT "tenancy"."append_only"(\'tb_user\')', True),
        ("SELECT tenancy . protect_table('tb_user')", True),  # unusual: it is not looked into
        ("SELECT tenancy.protect_table_and_more('tb_user')", True),
    ],
)
def test_a_script_knows_whether_it_may_replace_functions(sql: str, replaces: bool) -> None:
    assert script("SELECT 1", sql).replaces_routines is replaces
