"""The gate: each rule refuses and accepts what it should, and every template that is shipped passes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from control_plane.settings import shipped
from control_plane.templates import Templates
from control_plane.templates.lint import CODES, Finding, lint_template
from tests.support.templates import write_sample
from tests.unit.templates.lint_cases import CASES, TABLE, VIEW, Case, body
from tests.unit.templates.lock_cases import STEPS

THINGS = """
CREATE VIEW things WITH (security_invoker = true) AS
SELECT tenant_id, id, jsonb_build_object('__typename', 'Thing', 'id', id, 'name', name) AS data FROM tb_a;
"""


def rules(findings: list[Finding]) -> list[str]:
    return [finding.rule for finding in findings]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}: {' '.join(case.refused.split())[:60]}")
def test_a_rule_refuses_what_breaks_it_and_nothing_else(case: Case, tmp_path: Path) -> None:
    refused = lint_template(write_sample(tmp_path, {"expand.sql": case.refused}))
    assert rules(refused) == [case.rule], refused
    assert refused[0].message
    assert refused[0].instead


@pytest.mark.parametrize("sql", sorted({case.accepted for case in CASES}), ids=lambda sql: " ".join(sql.split())[:60])
def test_what_is_written_instead_passes(sql: str, tmp_path: Path) -> None:
    assert lint_template(write_sample(tmp_path, {"expand.sql": sql})) == []


def test_every_rule_has_a_case() -> None:
    elsewhere = {"syntax", "waiver", "api-column", "api-key", "api-type", "deprecation", "contract-unannounced"}
    when_run = {"catalogue-lost", "contract-dependents", "rehearsal", "rewrite", "unforeseen-lock"}
    assert {case.rule for case in CASES} | {step.rule for step in STEPS} | elsewhere | when_run == set(CODES)


def test_the_document_explains_every_rule_and_no_other() -> None:
    document = (Path(__file__).resolve().parents[3] / "docs" / "template-lint.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", document, re.MULTILINE))
    assert explained | {"waiver", "syntax"} == set(CODES)


@pytest.mark.parametrize("name", list(Templates.load(shipped("tenant_templates"))))
def test_the_templates_that_are_shipped_pass(name: str) -> None:
    assert [str(each) for each in lint_template(Templates.load(shipped("tenant_templates"))[name])] == []


def test_a_finding_names_the_place(tmp_path: Path) -> None:
    sql = f"-- ünïcode\n{VIEW}{body('x := 1;' + chr(10) + 'EXECUTE input;')}"
    (found,) = lint_template(write_sample(tmp_path, {"expand.sql": sql}))
    assert (found.template, found.file) == ("sample", "0001_step/expand.sql")
    assert "EXECUTE" in sql.splitlines()[found.line - 1]


def test_the_place_inside_an_expression_of_a_body_is_named(tmp_path: Path) -> None:
    sql = body("IF x = 1\n   AND EXISTS (SELECT\n FROM other.tb_a) THEN x := 2; END IF;")
    (found,) = lint_template(write_sample(tmp_path, {"expand.sql": sql}))
    assert "other.tb_a" in sql.splitlines()[found.line - 1]


def test_a_body_in_a_quoted_literal_is_read_too(tmp_path: Path) -> None:
    sql = body("EXECUTE 'SELECT 1';").replace("'", "''").replace("$$", "'")
    assert rules(lint_template(write_sample(tmp_path, {"expand.sql": sql}))) == ["dynamic-sql"]


def test_a_trigger_s_body_is_read(tmp_path: Path) -> None:
    sql = body("NEW.name := lower(NEW.name);\nEXECUTE 'x';\nRETURN NEW;", returns="trigger").replace("input jsonb", "")
    assert rules(lint_template(write_sample(tmp_path, {"expand.sql": sql}))) == ["dynamic-sql"]


def test_what_is_no_sql_is_said_with_its_line(tmp_path: Path) -> None:
    (found,) = lint_template(write_sample(tmp_path, {"expand.sql": "SELECT tenancy.f();\nCREATE TABEL x;"}))
    assert (found.rule, found.line, found.message) == ("syntax", 2, 'syntax error at or near "TABEL"')


def test_smoke_files_hold_queries_and_calls(tmp_path: Path) -> None:
    smoke = "SELECT data FROM things; INSERT INTO tb_a (name) VALUES ('x'); SET search_path = other;"
    found = lint_template(write_sample(tmp_path, {"expand.sql": TABLE, "smoke.sql": smoke}))
    assert [(each.rule, each.file) for each in found] == [("session-state", "0001_step/smoke.sql")]


# Waivers.


WAIVED = "-- lint: allow removal because nothing reads it any more\nDROP VIEW v_old;"


def test_a_waiver_with_a_reason_lets_one_statement_pass(tmp_path: Path) -> None:
    found = lint_template(write_sample(tmp_path, {"expand.sql": f"{TABLE}{WAIVED}\nDROP VIEW v_other;"}))
    assert [(each.rule, each.line) for each in found] == [("removal", 11)]


@pytest.mark.parametrize(
    ("comment", "problem"),
    [
        ("-- lint: allow removal", "the waiver of removal gives no reason"),
        ("-- lint: allow removal because", "'lint: allow removal because' cannot be understood"),
        ("-- lint: allow nonsense because I say so", "there is no rule 'nonsense' to waive"),
        ("-- lint: allow syntax because I say so", "there is no rule 'syntax' to waive"),
        ("-- lint: disable", "'lint: disable' cannot be understood"),
    ],
)
def test_a_waiver_without_a_reason_or_a_rule_is_a_finding_and_waives_nothing(
    comment: str, problem: str, tmp_path: Path
) -> None:
    found = lint_template(write_sample(tmp_path, {"expand.sql": f"{comment}\nDROP VIEW v_old;"}))
    assert [(each.rule, each.line) for each in found] == [("waiver", 1), ("removal", 2)]
    assert found[0].message == problem


@pytest.mark.parametrize("place", ["above another statement", "at the end"])
def test_a_waiver_without_an_effect_is_a_finding(place: str, tmp_path: Path) -> None:
    comment = WAIVED.partition("\n")[0]
    sql = f"{comment}{TABLE}" if place == "above another statement" else f"{TABLE}{comment}"
    found = lint_template(write_sample(tmp_path, {"expand.sql": sql}))
    assert [each.message for each in found] == ["the waiver of removal has no effect"]


# What API versions promise.


def grown(tmp_path: Path, second: str, register: str = "") -> list[Finding]:
    first = {"expand.sql": TABLE, "api_v1.sql": THINGS}
    template = write_sample(tmp_path, first, {"api_v1.sql": second}, manifest=register)
    return lint_template(template)


REPLACED = THINGS.replace("CREATE VIEW", "CREATE OR REPLACE VIEW")
REGISTER = """
[[deprecations]]
api = 1
resource = "things"
field = "name"
since = 1
announced = 2026-01-01
sunset = 2026-07-01
"""


@pytest.mark.parametrize(
    "view",
    [
        REPLACED,
        REPLACED.replace("'name', name", "'name', name, 'more', 1"),
        REPLACED.replace("AS data", "AS data, name"),
        REPLACED.replace("jsonb_build_object(", "jsonb_build_object('a', 1) || jsonb_build_object("),
        REPLACED.replace("jsonb_build_object(", "fn_document("),  # the text alone does not tell
    ],
)
def test_a_version_may_add_to_a_view(view: str, tmp_path: Path) -> None:
    assert grown(tmp_path, view) == []


@pytest.mark.parametrize(
    ("view", "rule"),
    [
        (REPLACED.replace("tenant_id, id,", "tenant_id,"), "api-column"),
        (REPLACED.replace("tenant_id, id,", "tenant_id, name, id,"), "api-column"),
        (REPLACED.replace(", 'name', name", ""), "api-key"),
    ],
)
def test_a_version_may_not_take_from_a_view(view: str, rule: str, tmp_path: Path) -> None:
    found = grown(tmp_path, view)
    assert [(each.rule, each.file) for each in found] == [(rule, "0002_step/api_v1.sql")]


WITHOUT_NAME = REPLACED.replace(", 'name', name", "")


def test_a_key_may_go_in_the_version_that_was_announced(tmp_path: Path) -> None:
    assert grown(tmp_path, WITHOUT_NAME, REGISTER + "removed_in = 2") == []


def test_a_key_may_not_go_while_it_is_only_deprecated(tmp_path: Path) -> None:
    assert rules(grown(tmp_path, WITHOUT_NAME, REGISTER)) == ["api-key", "deprecation"]


def test_what_was_announced_to_go_goes(tmp_path: Path) -> None:
    assert rules(grown(tmp_path, REPLACED, REGISTER + "removed_in = 2")) == ["deprecation"]


def test_a_deprecation_names_what_there_is(tmp_path: Path) -> None:
    register = REGISTER.replace('"things"', '"nothing"')
    found = grown(tmp_path, REPLACED, register)
    assert [(each.rule, each.file) for each in found] == [("deprecation", "template.toml")]


def test_only_the_wanted_versions_are_reported(tmp_path: Path) -> None:
    template = write_sample(tmp_path, {"expand.sql": "DROP TABLE a"}, {"expand.sql": "DROP TABLE b"})
    assert [each.file for each in lint_template(template, [2])] == ["0002_step/expand.sql"]
    assert lint_template(template, []) == []
