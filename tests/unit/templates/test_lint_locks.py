"""What a version may do to tables that have rows: each rule refuses with the words a developer needs, and accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.templates.lint import Finding, lint_template
from tests.support.templates import write_sample
from tests.unit.templates.lock_cases import BASE, STEPS, Step

ANNOUNCED = """
[[deprecations]]
api = 1
resource = "things"
field = "a.b"
since = 1
announced = 2026-01-01
sunset = 2026-02-01
removed_in = 2
"""


def named(step: Step) -> str:
    return f"{step.rule}: {' '.join(step.refused.split())[-60:]}"


def second(directory: Path, files: dict[str, str], manifest: str = ANNOUNCED) -> list[Finding]:
    """What the gate says of a second version made of `files`."""
    return lint_template(write_sample(directory, {"expand.sql": BASE}, files, manifest=manifest), [2])


@pytest.mark.parametrize("step", STEPS, ids=named)
def test_a_version_is_refused_with_the_words_that_a_developer_needs(step: Step, tmp_path: Path) -> None:
    found = [each for each in second(tmp_path, {step.file: step.refused}) if each.rule == step.rule]
    assert [(each.file, each.message, each.instead) for each in found] == [
        (f"0002_step/{step.file}", step.message, step.instead)
    ]


@pytest.mark.parametrize("step", STEPS, ids=named)
def test_what_is_written_instead_passes(step: Step, tmp_path: Path) -> None:
    assert second(tmp_path, step.accepted) == []


# What several versions do together.


ADDED = {
    "expand.sql": "ALTER TABLE tb_a ADD CONSTRAINT named CHECK (name IS NOT NULL) NOT VALID",
    "concurrent.sql": "ALTER TABLE tb_a VALIDATE CONSTRAINT named",
}
REQUIRED = {"expand.sql": "ALTER TABLE tb_a ALTER COLUMN name SET NOT NULL, DROP CONSTRAINT named"}


def test_not_null_is_set_in_the_version_after_its_proof(tmp_path: Path) -> None:
    template = write_sample(tmp_path, {"expand.sql": BASE}, ADDED, REQUIRED)
    assert lint_template(template) == []


@pytest.mark.parametrize(
    "proof",
    [
        {"expand.sql": ADDED["expand.sql"]},  # not validated
        {**ADDED, "expand.sql": ADDED["expand.sql"].replace("name IS NOT NULL", "name <> ''")},
        {**ADDED, "expand.sql": ADDED["expand.sql"].replace("name IS NOT NULL", "id IS NOT NULL")},
        {**ADDED, "expand.sql": ADDED["expand.sql"].replace("name IS NOT NULL", "name IS NULL")},
    ],
)
def test_another_proof_is_none(proof: dict[str, str], tmp_path: Path) -> None:
    found = lint_template(write_sample(tmp_path, {"expand.sql": BASE}, proof, REQUIRED), [3])
    assert "set-not-null" in [each.rule for each in found]


def test_the_proof_alone_may_not_be_dropped(tmp_path: Path) -> None:
    dropped = {"expand.sql": "ALTER TABLE tb_a DROP CONSTRAINT named"}
    (found,) = lint_template(write_sample(tmp_path, {"expand.sql": BASE}, ADDED, dropped), [3])
    assert (found.rule, found.message) == ("removal", "the constraint named of tb_a is dropped")


def test_a_table_of_an_earlier_version_has_rows_whatever_the_version_makes(tmp_path: Path) -> None:
    files = {"expand.sql": "CREATE INDEX i ON tb_change (tenant_id, id)"}  # made by tenancy.create_change_feed()
    assert [each.rule for each in second(tmp_path, files)] == ["index-blocks-writes"]


def test_the_first_version_of_a_template_meets_no_rows(tmp_path: Path) -> None:
    sql = BASE + "CREATE INDEX i ON tb_a (tenant_id, name); UPDATE tb_b SET name = 'a'; UPDATE tb_a SET name = 'a';"
    sql += "SELECT tenancy.create_change_feed(); CREATE INDEX j ON tb_change (tenant_id, id);"
    assert lint_template(write_sample(tmp_path, {"expand.sql": sql})) == []


# Removals.


@pytest.mark.parametrize("sql", ["ALTER TABLE tb_a DROP COLUMN name", "DROP VIEW v_a", "DROP FUNCTION fn_a(jsonb)"])
def test_what_nobody_announced_stays(sql: str, tmp_path: Path) -> None:
    (found,) = second(tmp_path, {"contract.sql": sql}, ANNOUNCED.replace("removed_in = 2", ""))
    assert (found.rule, found.message, found.instead) == (
        "contract-unannounced",
        "nothing in template.toml announced what version 2 takes away",
        "list it under [[deprecations]] with removed_in = 2, or waive this: nobody can know of it",
    )


def test_a_trigger_was_promised_to_nobody(tmp_path: Path) -> None:
    assert second(tmp_path, {"contract.sql": "DROP TRIGGER t ON tb_a"}, manifest="") == []


def test_contract_sql_runs_last_in_the_transaction(tmp_path: Path) -> None:
    files = {
        "expand.sql": "",
        "contract.sql": "DROP VIEW v_a",
        "api_v1.sql": "",
        "concurrent.sql": "",
        "backfill.sql": "",
    }
    template = write_sample(tmp_path, {"expand.sql": BASE}, files)
    assert [part.label.partition("/")[2] for part in template.version(2).parts()] == [
        "expand.sql", "api_v1.sql", "contract.sql",
    ]  # fmt: skip


# Waivers in template.toml, for files that were released.


WAIVER = """
[[waivers]]
place = "{place}"
rule = "{rule}"
reason = "the table is small"
"""
INDEX = {"expand.sql": "-- an index\nCREATE INDEX i ON tb_a (tenant_id, name)"}


def test_template_toml_waives_what_stands_in_a_released_file(tmp_path: Path) -> None:
    (found,) = second(tmp_path / "without", INDEX)
    waiver = WAIVER.format(place=f"{found.file}:{found.line}", rule=found.rule)
    waived = write_sample(tmp_path / "with", {"expand.sql": BASE}, INDEX, manifest=waiver)
    assert lint_template(waived) == []
    assert lint_template(waived, [1]) == [], "another version is not asked"
    plain = write_sample(tmp_path / "plain", {"expand.sql": BASE}, INDEX)
    assert waived.version(2).checksum == plain.version(2).checksum
    assert waived.script(1, 2).digest == plain.script(1, 2).digest


@pytest.mark.parametrize(
    ("place", "rule", "problem"),
    [
        ("0002_step/expand.sql:1", "index-blocks-writes", "the waiver of index-blocks-writes has no effect"),
        ("0002_step/expand.sql:2", "check-scan", "the waiver of check-scan has no effect"),
        ("0002_other/expand.sql:2", "check-scan", "the waiver of check-scan has no effect"),
        ("0002_step", "index-blocks-writes", "the waiver of index-blocks-writes has no effect"),
        ("0002_step/expand.sql:2", "syntax", "there is no rule 'syntax' to waive"),
        ("0002_step/expand.sql:2", "nonsense", "there is no rule 'nonsense' to waive"),
    ],
)
def test_a_waiver_in_template_toml_is_true(place: str, rule: str, problem: str, tmp_path: Path) -> None:
    found = second(tmp_path, INDEX, WAIVER.format(place=place, rule=rule))
    assert [(each.file, each.rule) for each in found] == [
        ("0002_step/expand.sql", "index-blocks-writes"), ("template.toml", "waiver"),
    ]  # fmt: skip
    assert found[1].message == f"{problem} at {place}"


def test_a_waiver_for_a_version_to_come_waits_for_it(tmp_path: Path) -> None:
    assert second(tmp_path, {"expand.sql": ""}, WAIVER.format(place="0003_step/expand.sql:1", rule="check-scan")) == []
