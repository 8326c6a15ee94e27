"""The three flows of the README work as pasted, and so does what two documents add to them."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.support.program import Program, free_port, stop
from tests.support.servers import temporary_home

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REVOCATION = (ROOT / "docs" / "revocation.md").read_text(encoding="utf-8")
RELEASING = (ROOT / "docs" / "releasing.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def flows() -> str:
    """The shell blocks of the three flows, in order."""
    return blocks(README.partition("\n## The three flows\n")[2].partition("\n## ")[0])


def blocks(text: str) -> str:
    return "".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


@pytest.mark.timeout(300)
def test_the_three_flows_work_as_pasted(tmp_path: Path) -> None:
    # What an application gets from `cp env` leads to the same installation from anywhere.
    script = (
        flows()
        + blocks(REVOCATION)
        + blocks(RELEASING)
        + f'eval "$(cp env)"\nCP_HOME={tmp_path} cp tenant show umbrella\n'
    )
    assert ADDRESS in script
    with temporary_home() as home:
        program, output = Program(home, free_port()), home.parent / "serve.log"
        program.run("init")
        with program.started("serve", output=output) as process:
            program.wait_until_ready(process, output)
            pasted = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script.replace(ADDRESS, program.url)],
                env=program.environment | {"PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert pasted.returncode == 0, pasted.stdout + pasted.stderr
            assert stop(process) == 0
    assert "event: end" in pasted.stdout
    for expected in ('"slug":"umbrella"', "Wayne Enterprises", '"name": "Hive"', "tenant_suspended", "nothing to do"):
        assert expected in pasted.stdout
    assert pasted.stdout.count("The token has been revoked.") == 4  # as `detail` and as `message`
    assert "not_found" not in pasted.stdout
