"""What is read of the files whose statements run one by one, and what is left of them where nobody is kept waiting."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from control_plane.templates.lint.apart import Apart, apart, inside
from tests.support.stepped import stepped_template
from tests.support.templates import write_sample


@pytest.mark.parametrize(
    ("sql", "kind", "name", "detail"),
    [
        ("CREATE UNIQUE INDEX CONCURRENTLY i ON tb_a (tenant_id, name)", "build", "i", "tb_a"),
        ("DROP INDEX CONCURRENTLY i", "drop", "i", ""),
        ("REINDEX TABLE CONCURRENTLY tb_a", "rebuild", "tb_a", ""),
        ("REINDEX (CONCURRENTLY, VERBOSE) INDEX i", "rebuild", "i", ""),
        ("ALTER TYPE mood ADD VALUE 'it''s' BEFORE 'so'", "label", "mood", "it's"),
        ("ALTER TABLE tb_a DETACH PARTITION tb_old CONCURRENTLY", "detach", "tb_a", "tb_old"),
        ("ALTER TABLE tb_a DETACH PARTITION tb_old FINALIZE", "finalize", "tb_a", "tb_old"),
        ("ALTER TABLE tb_a VALIDATE CONSTRAINT named", "other", "", ""),
        ("UPDATE tb_a SET name = ''", "other", "", ""),
    ],
)
def test_a_statement_says_what_half_of_it_would_be(sql: str, kind: str, name: str, detail: str) -> None:
    (found,) = apart("0002_step/concurrent.sql", f"{sql};\n")
    assert (found.kind, found.name, found.detail, found.sql.strip()) == (kind, name, detail, sql)


def test_statements_stand_at_their_lines() -> None:
    sql = "-- a comment; with a semicolon\nDROP INDEX CONCURRENTLY a;\n\nDROP INDEX CONCURRENTLY b"
    assert [(each.line, each.name) for each in apart("0002_step/concurrent.sql", sql)] == [(2, "a"), (4, "b")]


def test_the_word_goes_and_nothing_else() -> None:
    kept = """\
-- CONCURRENTLY in a comment
/* CONCURRENTLY /* and in one inside */ CONCURRENTLY */
CREATE INDEX  i ON tb_a (tenant_id, "CONCURRENTLY", "a ""concurrently"" b")
    WHERE name <> 'CONCURRENTLY ''concurrently''' AND name <> E'\\' CONCURRENTLY'
      AND name <> $$CONCURRENTLY$$ AND name <> $x$ $$ CONCURRENTLY $x$ AND name <> 'ß';
DROP INDEX  j;
"""
    word = "CONCURRENTLY"
    written = kept.replace("INDEX  i", f"INDEX {word} i").replace("INDEX  j", "INDEX concurrently j")
    found = inside("0002_step/concurrent.sql", written)
    assert found == kept.replace("INDEX  ", f"INDEX {' ' * len(word)} ")


def test_what_only_repairs_is_left_out_and_lines_stay() -> None:
    sql = (
        "REINDEX INDEX\n CONCURRENTLY i;\nALTER TABLE tb_a DETACH PARTITION tb_b FINALIZE;\n"
        "ALTER TABLE tb_a\nDETACH PARTITION tb_c CONCURRENTLY;"
    )
    lines = [line.strip() for line in inside("0002_step/concurrent.sql", sql).splitlines()]
    assert lines == ["", ";", ";", "ALTER TABLE tb_a", "DETACH PARTITION tb_c             ;"]


def test_a_file_that_is_no_sql_is_for_the_gate_to_refuse() -> None:
    assert apart("0002_step/concurrent.sql", "CREATE 'INDEX CONCURRENTLY") == []
    assert inside("0002_step/concurrent.sql", "CREATE 'INDEX CONCURRENTLY") == "CREATE 'INDEX CONCURRENTLY"


def test_a_way_is_cut_after_each_version_that_has_steps(tmp_path: Path) -> None:
    template = stepped_template(tmp_path)
    assert [(each.from_version, each.to_version, each.beside) for each in template.stages(1, 4)] == [
        (1, 2, ("concurrent", "backfill")),
        (2, 3, ("concurrent",)),
        (3, 4, ()),
    ]
    assert [(each.from_version, each.to_version) for each in template.stages(2, 3)] == [(2, 3)]
    assert template.stages(4, 4) == ()
    with pytest.raises(AssertionError, match="passed over"):
        template.script(1, 3)


@pytest.mark.parametrize("start", [0, 1])
def test_a_home_without_rows_takes_steps_in_its_transaction(tmp_path: Path, start: int) -> None:
    script = stepped_template(tmp_path).script(start, 4, empty=True)
    assert script.beside == ()
    assert [part.label for part in script.parts if part.label[:4] == "0002"] == [
        "0002_step/expand.sql",
        "0002_step/concurrent.sql",
        "0002_step/backfill.sql",
    ]
    assert "owe_steps" not in script.message(uuid4(), "t_1", 1)


def test_a_version_without_steps_owes_none(tmp_path: Path) -> None:
    template = write_sample(tmp_path, {"expand.sql": "SELECT 1"}, {"expand.sql": "SELECT 1"})
    assert [each.to_version for each in template.stages(1, 2)] == [2]
    assert "owe_steps" not in template.script(1, 2).message(uuid4(), "t_1", 1)


def test_apart_is_a_value() -> None:
    assert apart("0002_step/backfill.sql", "SELECT 1") == [Apart(1, "SELECT 1")]
