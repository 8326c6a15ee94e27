"""What can be said of the image without building it."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib

import pytest

from tests.containers.conftest import ROOT

LOCKS = ("requirements.lock", "requirements-build.lock")


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """Per stage its instructions as (keyword, arguments); stage 0 is what stands before the first FROM."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = [[]]
    for line in filter(str.strip, text.splitlines()):
        keyword, arguments = line.split(maxsplit=1)
        if keyword == "FROM":
            found.append([])
        found[-1].append((keyword, " ".join(arguments.split())))
    return found


def test_every_stage_stands_on_the_base_that_the_builder_chooses(stages: list[list[tuple[str, str]]]) -> None:
    assert stages[0][0][0] == "ARG"
    assert stages[0][0][1].startswith("BASE_IMAGE=")
    assert [stage[0][1].split()[0] for stage in stages[1:]] == ["${BASE_IMAGE}"] * 2


def test_all_that_is_copied_exists_and_is_let_into_the_context(stages: list[list[tuple[str, str]]]) -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [arguments for stage in stages for keyword, arguments in stage if keyword == "COPY"]
    sources = [each for arguments in copied if "--from=" not in arguments for each in arguments.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in let_in), source


def test_the_final_stage_runs_as_a_numbered_user_that_is_not_root(stages: list[list[tuple[str, str]]]) -> None:
    users = [arguments for keyword, arguments in stages[-1] if keyword == "USER"]
    assert users
    assert all(re.fullmatch(r"[1-9]\d+:[1-9]\d+", each) for each in users)


def test_the_final_stage_installs_nothing(stages: list[list[tuple[str, str]]]) -> None:
    runs = " ".join(arguments for keyword, arguments in stages[-1] if keyword == "RUN")
    assert not re.search(r"\b(pip|apt|apt-get|apk|gcc|make|curl|wget)\b", runs)


def test_packages_are_installed_by_hash_as_wheels_from_no_named_index(stages: list[list[tuple[str, str]]]) -> None:
    installs = re.findall(r"pip .*?install [^&]*", " ".join(arguments for _, arguments in stages[1]))
    assert len(installs) == 3
    for each in installs:
        assert "--no-index" in each or ("--require-hashes" in each and "--only-binary :all:" in each)
    for each in [(ROOT / "Dockerfile").read_text(), *((ROOT / lock).read_text() for lock in LOCKS)]:
        assert not re.search(r"--(extra-)?index-url|--find-links|https?://", each)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_hash(lock: str) -> None:
    packages = re.split(r"^(?=[\w.\-\[\]]+==)", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
    assert packages
    assert all("--hash=sha256:" in each for each in packages)


def test_the_locked_backend_is_the_one_that_the_project_names() -> None:
    (backend,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert re.match(r"[\w-]+", backend)[0] + "==" in (ROOT / "requirements-build.lock").read_text()  # type: ignore[index]


def test_our_cp_is_kept_off_the_path(stages: list[list[tuple[str, str]]]) -> None:
    assert not any("PATH=" in arguments for keyword, arguments in stages[-1] if keyword == "ENV")
    (entrypoint,) = [arguments for keyword, arguments in stages[-1] if keyword == "ENTRYPOINT"]
    assert json.loads(entrypoint) == ["/opt/control-plane/bin/control-plane"]


def test_the_health_check_is_valid_python_that_asks_healthz(stages: list[list[tuple[str, str]]]) -> None:
    (check,) = [arguments for keyword, arguments in stages[-1] if keyword == "HEALTHCHECK"]
    _, flag, code = json.loads(check[check.index("[") :])
    assert flag == "-c"
    compile(code, "HEALTHCHECK", "exec")
    assert "/healthz" in code
