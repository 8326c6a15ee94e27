"""The service as a process: onboarded over HTTP, used with tokens of the command line, stopped by a signal."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.program import Program, client, free_port, stop
from tests.support.servers import temporary_home

MODES = {"acme": "shared", "bcme": "shared", "globex": "schema", "initech": "database"}


@dataclass
class Service:
    program: Program
    process: subprocess.Popen[bytes]
    platform: httpx.Client
    tenants: dict[str, dict[str, Any]]
    rows: dict[str, list[str]]  # slug → ids of its projects
    tokens: dict[str, dict[str, str]] = field(default_factory=dict)

    def tenant(self, slug: str) -> httpx.Client:
        if slug not in self.tokens:
            self.tokens[slug] = self.program.token("--tenant", slug)
        return client(self.program, self.tokens[slug])


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A running service with a tenant per mode (two shared ones), two projects each."""
    with temporary_home() as home:
        program, output = Program(home, free_port()), home.parent / "serve.log"
        program.run("init")
        with program.started("serve", output=output) as process:
            program.wait_until_ready(process, output)
            with client(program, program.token("--platform")) as platform:
                opened = Service(program, process, platform, {}, {})
                for slug, isolation in MODES.items():
                    _onboard(opened, slug, isolation)
                yield opened


def _onboard(service: Service, slug: str, isolation: str) -> None:
    answer = service.platform.post("/tenants", json={"slug": slug, "name": slug, "isolation": isolation})
    assert answer.status_code == 201, answer.text
    service.tenants[slug] = answer.json()
    with service.tenant(slug) as caller:
        for name in ("One", "Two"):
            made = caller.post("/api/v1/rpc/create_project", json={"name": f"{name} of {slug}"})
            assert made.status_code == 200, made.text
            service.rows.setdefault(slug, []).append(made.json()["data"]["project"]["id"])


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("slug", MODES)
def test_each_token_sees_exactly_its_own_rows(service: Service, slug: str, version: str) -> None:
    with service.tenant(slug) as caller:
        projects = caller.get(f"/api/{version}/projects").json()
        assert sorted(project["id"] for project in projects) == sorted(service.rows[slug])
        assert {slug in project["name"] for project in projects} == {True}
        for other, ids in service.rows.items():
            expected = 200 if other == slug else 404
            for id_ in ids:
                assert caller.get(f"/api/{version}/projects/{id_}").status_code == expected


def test_without_a_token_nothing_is_served(service: Service) -> None:
    for path in ("/api/v1/projects", "/tenants", "/clusters"):
        answer = httpx.get(service.program.url + path)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("slug", ["acme", "globex", "initech"])
def test_a_suspended_tenant_is_refused_at_once_and_served_again_when_resumed(service: Service, slug: str) -> None:
    with service.tenant(slug) as caller:
        assert caller.get("/api/v1/projects").status_code == 200
        assert service.platform.post(f"/tenants/{slug}/suspend").status_code == 200
        for answer in (
            caller.get("/api/v1/projects"),
            caller.post("/api/v1/rpc/create_project", json={"name": "No"}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "tenant_suspended")
        service.program.run("tenant", "resume", slug)
        assert len(caller.get("/api/v1/projects").json()) == 2


def test_commands_join_the_running_server(service: Service) -> None:
    listed = json.loads(service.program.run("tenant", "list", "--json").stdout)
    assert {tenant["slug"]: tenant["isolation"] for tenant in listed} == MODES
    shown = json.loads(service.program.run("tenant", "show", "acme", "--json").stdout)
    assert shown["id"] == service.tenants["acme"]["id"]
    assert service.program.run("doctor").returncode == 0
    assert httpx.get(service.program.url + "/readyz").status_code == 200


def test_a_command_that_fails_says_why_and_how_to_go_on(service: Service) -> None:
    run = service.program.run("tenant", "create", "acme", code=2)
    assert (run.stdout, run.stderr.splitlines()[0]) == ("", "error: The slug is taken. (slug_taken)")
    problem = json.loads(service.program.run("tenant", "show", "nobody", "--json", code=2).stderr)
    assert (problem["code"], problem["status"]) == ("tenant_not_found", 404)
    both = service.program.run("token", "--tenant", "acme", "--platform", code=2)
    assert both.stderr.startswith("error: Say whose token")
    run = service.program.run("token", "--platform", "--ttl", "soon", code=2)
    assert "hint: A number and a unit" in run.stderr


def test_a_second_service_on_the_port_is_refused(service: Service) -> None:
    run = service.program.run("serve", code=2)
    assert "Cannot listen on 127.0.0.1" in run.stderr
    assert "hint: Choose another port" in run.stderr


def test_a_platform_token_is_limited_to_its_scopes(service: Service) -> None:
    with client(service.program, service.program.token("--platform", "--scope", "tenants:read")) as reader:
        assert reader.get("/tenants").status_code == 200
        refused = reader.post("/tenants", json={"slug": "no", "name": "No", "isolation": "schema"})
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


def test_a_tenant_token_names_its_subject_and_expires(service: Service) -> None:
    subject = str(uuid4())
    token = service.program.token("--tenant", "acme", "--subject", subject, "--role", "admin", "--ttl", "90s")
    claims = _claims(token["Authorization"].removeprefix("Bearer "))
    assert (claims["sub"], claims["roles"], claims["exp"] - claims["iat"]) == (subject, ["admin"], 90)
    assert claims["tenant_id"] == service.tenants["acme"]["id"]


def _claims(token: str) -> dict[str, Any]:
    from jose import jwt

    claims: dict[str, Any] = jwt.get_unverified_claims(token)
    return claims


def test_a_service_without_init_says_what_to_do() -> None:
    with temporary_home() as home:
        run = Program(home, free_port()).run("serve", code=2)
        assert "hint: Run: cp init" in run.stderr


def test_a_terminated_service_exits_cleanly_and_takes_its_database_along() -> None:
    with temporary_home() as home:
        program, output = Program(home, free_port()), home.parent / "serve.log"
        program.run("init")
        with program.started("serve", output=output) as process:
            program.wait_until_ready(process, output)
            assert program.postgres_running
            assert stop(process) == 0, output.read_text()
            assert not program.postgres_running
            assert "Traceback" not in output.read_text()
