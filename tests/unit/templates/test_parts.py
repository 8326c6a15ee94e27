"""In which order the files of a version run."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from control_plane.templates.template import Version
from tests.support.templates import write_sample


def test_expand_comes_first_and_its_further_parts_by_name(tmp_path: Path) -> None:
    for name in ("api_v10.sql", "api_v2.sql", "expand_2_write.sql", "expand.sql", "expand_1_read.sql", "smoke.sql"):
        (tmp_path / name).write_text(f"-- {name}")
    parts = list(Version(1, "0001_trees", tmp_path, "").parts())
    assert [(part.label.partition("/")[2], part.api) for part in parts] == [
        ("expand.sql", None),
        ("expand_1_read.sql", None),
        ("expand_2_write.sql", None),
        ("api_v2.sql", 2),
        ("api_v10.sql", 10),
    ]
    assert [part.sql for part in parts] == [f"-- {part.label.partition('/')[2]}" for part in parts]


def test_a_message_bounds_its_waiting_before_it_does_anything(tmp_path: Path) -> None:
    template = write_sample(tmp_path, {"expand.sql": "SELECT 1"})
    message = template.script(0, 1).message(uuid4(), "t_1", 0.1, 30)
    assert message.splitlines()[:2] == [
        "SET LOCAL lock_timeout = '100ms';",
        "SET LOCAL statement_timeout = '30000ms';",
    ]


def test_a_place_is_found_in_the_message_with_the_timeouts_that_it_ran_with(tmp_path: Path) -> None:
    template = write_sample(tmp_path, {"expand.sql": "SELECT 1;\nSELECT 2;\n"})
    script, home = template.script(0, 1), uuid4()
    for timeout in (0, 60.0):
        message = script.message(home, "t_1", 2.0, timeout)
        for line in (1, 2):
            last = message.index(f"SELECT {line};") + len("SELECT 1;")
            assert script.locate(last, home, "t_1", 2.0, timeout) == f"0001_step/expand.sql:{line}"
