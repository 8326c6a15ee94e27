"""The OpenAPI document is true: whatever it allows, and much that it does not, is answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis.checks import CheckContext
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.program import Program, client, free_port
from tests.support.servers import temporary_home

EXAMPLES = 3  # per operation and kind of data
MORE = 40  # in the long tier


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    """A running service with one tenant, which is not the one of the examples: that one is deleted on the way."""
    with temporary_home() as home:
        program, output = Program(home, free_port()), home.parent / "serve.log"
        program.run("init")
        with program.started("serve", output=output) as process:
            program.wait_until_ready(process, output)
            program.run("tenant", "create", "resident", "--isolation", "schema")
            yield program


@pytest.fixture(scope="module")
def headers(program: Program) -> dict[str, dict[str, str]]:
    """By the first part of the path that they are for."""
    platform, tenant = program.token("--platform"), program.token("--tenant", "resident")
    return {
        "api": tenant,
        "tenants": platform,
        "operations": platform,
        "clusters": platform,
        "revocations": platform,
        "migrations": platform,
    }


def server_error_only_as_declared(context: CheckContext, response: Any, case: schemathesis.Case[Any]) -> None:
    """A 503 says when to come back; no other 5xx is ever right."""
    if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        assert "retry-after" in {name.lower() for name in response.headers}
    else:
        assert response.status_code < 500, response.text


CHECKS = [
    server_error_only_as_declared,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
ANY = list(HealthCheck)


@pytest.mark.parametrize("examples", [EXAMPLES, pytest.param(MORE, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
def test_every_answer_is_one_that_the_document_declares(
    program: Program, headers: dict[str, dict[str, str]], examples: int
) -> None:
    document = schemathesis.openapi.from_url(f"{program.url}/openapi.json")
    for found in document.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        for mode in schemathesis.GenerationMode:
            _explore(operation.as_strategy(generation_mode=mode), headers.get(operation.path.split("/")[1]), examples)


def _explore(cases: SearchStrategy[schemathesis.Case[Any]], headers: dict[str, str] | None, examples: int) -> None:
    @settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=ANY)
    @given(case=cases)
    def explore(case: schemathesis.Case[Any]) -> None:
        case.validate_response(case.call(headers=headers), checks=CHECKS)

    with suppress(Unsatisfiable):  # an operation without parameters cannot be called wrongly
        explore()


def test_every_operation_has_a_summary_a_right_and_problems(program: Program) -> None:
    document = httpx.get(f"{program.url}/openapi.json").json()
    assert {"platformToken", "tenantToken"} == set(document["components"]["securitySchemes"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            if path in ("/healthz", "/readyz"):
                assert "security" not in operation, where
                continue
            assert operation["security"], where
            for status, answer in operation["responses"].items():
                if status[0] in "45":
                    assert "application/problem+json" in answer["content"], f"{where} {status}"
            assert "Retry-After" in operation["responses"]["503"]["headers"], where


def test_the_documented_examples_are_accepted(program: Program, headers: dict[str, dict[str, str]]) -> None:
    schemas = httpx.get(f"{program.url}/openapi.json").json()["components"]["schemas"]
    with client(program, headers["tenants"]) as platform:
        new = schemas["TenantCreate"]["examples"][0] | {"slug": "example-inc"}
        assert platform.post("/tenants", json=new).status_code == 201
        change = schemas["TenantUpdate"]["examples"][0]
        assert platform.patch("/tenants/example-inc", json=change).status_code == 200
        shown = platform.get("/tenants/example-inc").json()
        assert set(shown) == set(schemas["Tenant"]["properties"]) == set(schemas["Tenant"]["examples"][0])
