"""The compose file is valid, asks for every secret, and starts things in the right order."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from control_plane.cli.server import GRACE
from control_plane.settings import Settings
from tests.containers.conftest import ROOT

TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES = ("postgres", "init", "api", "worker")
SECRETS = {"POSTGRES_PASSWORD", "CP_ADMIN_PASSWORD", "CP_SECRET_KEY", "CP_SIGNING_KEY"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(TEXT)
    return loaded


def test_the_file_is_valid_by_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(compose)


def test_every_secret_is_demanded_and_only_harmless_settings_have_a_default() -> None:
    variables = re.findall(r"\$\{(\w+)(:[?-])?([^}]*)\}", TEXT)
    demanded = {name for name, operator, _ in variables if operator == ":?"}
    assert demanded == SECRETS
    for name, operator, rest in variables:
        assert operator in (":?", ":-"), f"{name} may be empty"
        assert rest, f"{name} has neither a default nor a message"
        assert (name in SECRETS) == (operator == ":?")


def test_the_environment_holds_nothing_but_settings(compose: dict[str, Any]) -> None:
    for service in ("init", "api", "worker"):
        names = set(compose["services"][service]["environment"])
        assert names <= {f"CP_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("service", SERVICES)
def test_containers_run_locked_down(compose: dict[str, Any], service: str) -> None:
    written = compose["services"][service]
    assert written["read_only"] is True
    assert written["cap_drop"] == ["ALL"]
    assert written["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in written


def test_the_service_connects_as_the_administrator_that_is_no_superuser(compose: dict[str, Any]) -> None:
    assert compose["services"]["api"]["environment"]["CP_DATABASE_URL"].startswith("postgresql://cp_admin:")
    assert "POSTGRES_PASSWORD" not in compose["services"]["api"]["environment"]
    mounts = compose["services"]["postgres"]["volumes"]
    (script,) = [each for each in mounts if "docker-entrypoint-initdb.d" in each]
    assert (ROOT / script.split(":")[0]).is_file()


def test_data_is_kept_where_the_image_of_18_looks_for_it(compose: dict[str, Any]) -> None:
    assert "postgres-data:/var/lib/postgresql" in compose["services"]["postgres"]["volumes"]
    assert "postgres-data" in compose["volumes"]


@pytest.mark.parametrize("service", ["api", "worker"])
def test_nothing_serves_before_the_registry_is_ready(compose: dict[str, Any], service: str) -> None:
    assert compose["services"][service]["depends_on"]["init"] == {"condition": "service_completed_successfully"}
    assert compose["services"]["init"]["depends_on"]["postgres"] == {"condition": "service_healthy"}


def test_ports_are_published_on_this_machine_only(compose: dict[str, Any]) -> None:
    assert compose["services"]["api"]["ports"] == ["${CP_BIND:-127.0.0.1}:${CP_PORT:-8000}:8000"]
    assert all("ports" not in compose["services"][each] for each in SERVICES if each != "api")


def test_an_ended_service_has_the_time_that_it_takes(compose: dict[str, Any]) -> None:
    written = compose["services"]["api"]
    assert int(written["stop_grace_period"].removesuffix("s")) >= Settings().drain_seconds + GRACE + 10
    assert "CP_DRAIN_SECONDS" not in written["environment"]
