"""kill -9 in the middle of onboarding: afterwards every tenant is whole and active, or gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.program import PATIENCE, Program, client, free_port, stop
from tests.support.servers import temporary_home

MODES = ("shared", "schema", "database")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_killed_service_leaves_no_tenant_in_between() -> None:
    """The service dies once `answered` of the requests have their answer and the others are under way."""
    tenants, answered = (15, 4) if os.environ.get("CP_LONG_SAMPLE") else (50, 20)
    with temporary_home() as home:
        program, output = Program(home, free_port()), home.parent / "serve.log"
        program.run("init")
        token = program.token("--platform")

        with program.started("serve", output=output) as process:
            program.wait_until_ready(process, output)
            with ThreadPoolExecutor(tenants) as callers, client(program, token) as platform:
                requests = [callers.submit(_onboard, platform, number) for number in range(tenants)]
                while sum(request.done() for request in requests) < answered:
                    time.sleep(0.01)
                process.send_signal(signal.SIGKILL)
                process.wait()
                promised = {slug for request in requests if (slug := request.result()) is not None}
        assert len(promised) < tenants, "all requests were answered before the service died"

        with program.started("serve", output=output) as process:
            program.wait_until_ready(process, output)
            with client(program, token) as platform:
                left = _settled(platform)
                assert {tenant["status"] for tenant in left} == {"active"}
                assert promised <= {tenant["slug"] for tenant in left}
                troubles = program.run("doctor", "--json")
                assert [trouble for trouble in json.loads(troubles.stdout) if trouble["fatal"]] == []
                for tenant in left[:: max(1, tenants // 10)]:
                    with client(program, program.token("--tenant", tenant["slug"])) as caller:
                        made = caller.post("/api/v1/rpc/create_project", json={"name": tenant["slug"]})
                        assert made.status_code == 200, made.text
                        assert [each["name"] for each in caller.get("/api/v2/projects").json()] == [tenant["slug"]]
            assert stop(process) == 0, output.read_text()


def _onboard(platform: httpx.Client, number: int) -> str | None:
    """The slug of a tenant that the service said is active, None when it died before it could."""
    slug = f"tenant-{number}"
    body = {"slug": slug, "name": slug, "isolation": MODES[number % len(MODES)]}
    try:
        return slug if platform.post("/tenants", json=body).status_code == 201 else None
    except httpx.HTTPError:
        return None


def _settled(platform: httpx.Client) -> list[dict[str, Any]]:
    """All tenants, once none of them is between two states."""
    deadline = time.monotonic() + 3 * PATIENCE
    while True:
        tenants: list[dict[str, Any]] = platform.get("/tenants?limit=1000").json()["items"]
        if {tenant["status"] for tenant in tenants} <= {"active", "suspended"}:
            return tenants
        assert time.monotonic() < deadline, [tenant for tenant in tenants if tenant["status"] != "active"]
        time.sleep(0.2)
