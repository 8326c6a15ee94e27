"""An application on the library hears of revocations as the service does."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from control_plane.identity.verifier import TokenVerifier
from control_plane.tenants.revocations import Target, revoke
from tests.integration.sessions.application import MODES, World, code


@pytest.mark.parametrize("mode", MODES)
async def test_a_revoked_token_is_refused_by_an_application(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme = await world.members.add("acme", mode)
    headers = world.token(acme)
    assert (await client.get("/names", headers=headers)).status_code == 200
    target = Target("user", tenant="acme", user_id=acme.user_id)
    await revoke(world.members.databases, target, actor="tests")
    while (answer := await client.get("/names", headers=headers)).status_code == 200:
        await asyncio.sleep(0.005)
    assert code(answer) == (401, "invalid_token")
    assert (await client.get("/public")).status_code == 200


async def test_an_application_that_has_not_read_the_revocations_answers_503(
    world: World, client: httpx.AsyncClient
) -> None:
    acme = await world.members.add("acme")
    verifier = next(each.kwargs["verifier"] for each in world.app.user_middleware if "verifier" in each.kwargs)
    assert isinstance(verifier, TokenVerifier)
    verifier.revocations.trust(False)
    answer = await client.get("/whoami", headers=world.token(acme))
    assert code(answer) == (503, "registry_unavailable")
    assert answer.headers["retry-after"] == "2"
    assert (await client.get("/public")).status_code == 200
