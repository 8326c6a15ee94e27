"""A second opinion: whatever squawk refuses for its locks, a rule of the gate refuses too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from control_plane.templates.lint import lint_template
from tests.support.templates import write_sample
from tests.unit.templates.lock_cases import BASE, STEPS

SQUAWK = Path(sys.executable).with_name("squawk")

# What squawk wants otherwise, and why the gate does not.
NOT_OURS = {
    "prefer-robust-stmts",  # IF NOT EXISTS hides drift, and the stamp makes it needless: see if-not-exists
    "require-lock-timeout",  # the runner sets it for each attempt
    "require-statement-timeout",
    "require-timeout-settings",
    "prefer-bigint-over-int",  # a count of stock is no key: see column-kind
    "prefer-bigint-over-smallint",
    "prefer-identity",  # a counter of all tenants tells each of the others: see column-kind
    "require-enum-value-ordering",  # no lock
}

# squawk's rule, ours, and what both refuse in a version after the first.
SAMPLES = [
    ("adding-required-field", "column-not-null", "ALTER TABLE tb_a ADD COLUMN b text NOT NULL;"),
    ("adding-field-with-default", "column-rewrite", "ALTER TABLE tb_a ADD COLUMN b float DEFAULT random();"),
    ("adding-not-nullable-field", "set-not-null", "ALTER TABLE tb_a ALTER COLUMN name SET NOT NULL;"),
    ("adding-foreign-key-constraint", "foreign-key-scan", "ALTER TABLE tb_a ADD FOREIGN KEY (id) REFERENCES tb_b;"),
    ("adding-serial-primary-key-field", "unique-build", "ALTER TABLE tb_a ADD COLUMN b serial PRIMARY KEY;"),
    ("constraint-missing-not-valid", "check-scan", "ALTER TABLE tb_a ADD CONSTRAINT c CHECK (name <> '');"),
    ("disallowed-unique-constraint", "unique-build", "ALTER TABLE tb_a ADD CONSTRAINT c UNIQUE (tenant_id, name);"),
    ("changing-column-type", "column-type", "ALTER TABLE tb_a ALTER COLUMN name TYPE bigint;"),
    ("require-concurrent-index-creation", "index-blocks-writes", "CREATE INDEX i ON tb_a (tenant_id, name);"),
    ("require-concurrent-index-deletion", "concurrent-form", "DROP INDEX i;"),
    ("require-concurrent-reindex", "concurrent-form", "REINDEX INDEX i;"),
    ("require-concurrent-partition-detach", "concurrent-form", "ALTER TABLE tb_a DETACH PARTITION tb_b;"),
    ("prefer-text-field", "column-kind", "ALTER TABLE tb_a ADD COLUMN b varchar(9);"),
    ("prefer-timestamp-tz", "column-kind", "ALTER TABLE tb_a ADD COLUMN b timestamp;"),
    ("ban-char-field", "column-kind", "ALTER TABLE tb_a ADD COLUMN b char(9);"),
    ("ban-drop-column", "removal", "ALTER TABLE tb_a DROP COLUMN name;"),
    ("ban-drop-table", "removal", "DROP TABLE tb_a;"),
    ("ban-drop-view", "removal", "DROP VIEW v_a;"),
    ("ban-drop-function", "removal", "DROP FUNCTION f();"),
    ("ban-drop-type", "removal", "DROP TYPE t;"),
    ("ban-drop-database", "server-object", "DROP DATABASE d;"),
    ("ban-truncate-cascade", "cascade", "TRUNCATE tb_a CASCADE;"),
    ("renaming-column", "rename", "ALTER TABLE tb_a RENAME COLUMN name TO b;"),
    ("renaming-table", "rename", "ALTER TABLE tb_a RENAME TO tb_c;"),
    ("renaming-object", "rename", "ALTER VIEW v_a RENAME TO v_b;"),
    ("ban-set-schema", "rename", "ALTER TABLE tb_a SET SCHEMA extensions;"),
    ("transaction-nesting", "transaction-control", "BEGIN;"),
    ("ban-create-domain-with-constraint", "statement-kind", "CREATE DOMAIN d AS text CHECK (value <> '');"),
    ("ban-alter-domain-with-add-constraint", "statement-kind", "ALTER DOMAIN d ADD CHECK (value <> '');"),
]


def squawk(directory: Path, texts: Mapping[str, str]) -> dict[str, set[str]]:
    """The rules that squawk names, by the names of `texts`."""
    if not SQUAWK.exists():
        pytest.skip("squawk-cli has no program for this platform")
    for name, text in texts.items():
        (directory / f"{name}.sql").write_text(text, "utf-8")
    files = [str(directory / f"{name}.sql") for name in texts]
    said = subprocess.run(
        [SQUAWK, "--reporter", "json", "--assume-in-transaction", *files], capture_output=True, text=True, check=False
    )
    found: dict[str, set[str]] = defaultdict(set)
    for problem in json.loads(said.stdout):
        found[Path(problem["file"]).stem].add(problem["rule_name"])
    return found


def ours(directory: Path, sql: str, file: str = "expand.sql") -> set[str]:
    return {each.rule for each in lint_template(write_sample(directory, {"expand.sql": BASE}, {file: sql}), [2])}


def test_what_squawk_refuses_the_gate_refuses_by_a_rule_of_its_own(tmp_path: Path) -> None:
    said = squawk(tmp_path, {theirs: sql for theirs, _, sql in SAMPLES})
    for theirs, rule, sql in SAMPLES:
        assert theirs in said[theirs], "the sample is none"
        assert rule in ours(tmp_path / theirs, sql), f"{theirs}: {sql}"


def test_squawk_has_no_rule_about_the_gate_s_cases_that_is_not_known_here(tmp_path: Path) -> None:
    known = {theirs for theirs, _, _ in SAMPLES}
    said = squawk(tmp_path, {f"step_{number}": step.refused for number, step in enumerate(STEPS)})
    assert {rule for rules in said.values() for rule in rules} - NOT_OURS <= known
