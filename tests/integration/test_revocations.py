"""Taking tokens back over the API, and what takes effect although no notice arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import select, update

from control_plane.api.app import create_app
from control_plane.errors import InvalidInput
from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_platform_token, mint_tenant_token
from control_plane.operations.engine import NewTenant
from control_plane.pools.databases import Databases
from control_plane.pools.feed import RegistryFeed
from control_plane.registry import revocations as table
from control_plane.registry.models import AuditEvent, Cluster, Revocation
from control_plane.service import ControlPlane
from control_plane.settings import Settings
from control_plane.tenants.changes import resume_tenant, suspend_tenant
from control_plane.tenants.purge import purge
from control_plane.tenants.revocations import Target, revoke
from tests.support.callers import client, open_plane, platform_headers

MODES = ("shared", "schema", "database")
PROJECTS = "/api/v1/projects"


@pytest_asyncio.fixture
async def plane(settings: Settings, cluster: Cluster) -> AsyncIterator[ControlPlane]:
    async with open_plane(settings) as opened:
        yield opened


@pytest_asyncio.fixture
async def api(plane: ControlPlane) -> AsyncIterator[httpx.AsyncClient]:
    async with client(create_app(plane)) as opened:
        yield opened


async def onboard(plane: ControlPlane, slug: str, isolation: str = "shared") -> UUID:
    tenant, _ = await plane.operations.create_tenant(NewTenant(slug, slug, isolation), actor="tests", wait=60)
    return tenant.id


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def claim(plane: ControlPlane, token: str) -> str:
    """The `jti` of a token."""
    token_id = plane.verifier.verify(token).token_id
    assert token_id is not None
    return token_id


async def refused(api: httpx.AsyncClient, path: str, headers: dict[str, str]) -> None:
    """Waits until the token is refused as a revoked one."""
    while (answer := await api.get(path, headers=headers)).status_code == 200:
        await asyncio.sleep(0.005)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert answer.json()["message"] == "The token has been revoked."
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("mode", MODES)
async def test_the_tokens_of_one_user_are_taken_back_and_new_ones_are_good(
    plane: ControlPlane, api: httpx.AsyncClient, mode: str
) -> None:
    tenant_id, user_id = await onboard(plane, "acme", mode), uuid4()
    issuer = development_issuer(plane.settings)
    own, neighbour = (bearer(mint_tenant_token(issuer, tenant_id, user)) for user in (user_id, uuid4()))
    for headers in (own, neighbour):
        assert (await api.get(PROJECTS, headers=headers)).status_code == 200
    made = await api.post(
        "/revocations",
        json={"kind": "user", "tenant": "acme", "user_id": str(user_id)},
        headers=platform_headers(plane, "revocations:write"),
    )
    assert made.status_code == 201, made.text
    await refused(api, PROJECTS, own)
    assert (await api.get(PROJECTS, headers=neighbour)).status_code == 200
    moment = datetime.fromisoformat(made.json()["issued_before"])
    while datetime.now(UTC) < moment.replace(microsecond=0) + timedelta(seconds=1):
        await asyncio.sleep(0.01)  # `iat` counts whole seconds
    fresh = bearer(mint_tenant_token(issuer, tenant_id, user_id))
    assert (await api.get(PROJECTS, headers=fresh)).status_code == 200


async def test_each_kind_is_recorded_listed_audited_and_takes_effect(
    plane: ControlPlane, api: httpx.AsyncClient
) -> None:
    issuer, user_id = development_issuer(plane.settings), uuid4()
    acme, globex = await onboard(plane, "acme"), await onboard(plane, "globex")
    one, other = (mint_tenant_token(issuer, tenant_id, user_id) for tenant_id in (acme, globex))
    robot, leaked = mint_platform_token(issuer, "robot"), mint_platform_token(issuer, "ci")
    asked: list[tuple[dict[str, Any], str, str]] = [
        ({"kind": "token", "token_id": claim(plane, one)}, PROJECTS, one),
        ({"kind": "tenant", "tenant": str(globex)}, PROJECTS, other),
        ({"kind": "subject", "subject": "robot"}, "/tenants", robot),
        ({"kind": "token", "token_id": claim(plane, leaked)}, "/tenants", leaked),
    ]
    admin = platform_headers(plane)
    for body, path, token in asked:
        assert (await api.get(path, headers=bearer(token))).status_code == 200
        made = await api.post("/revocations", json=body, headers=admin)
        assert made.status_code == 201, made.text
        await refused(api, path, bearer(token))

    pages, query = [], "/revocations?limit=3"
    while query:
        page = await api.get(query, headers=admin)
        pages.append(page.json()["items"])
        query = page.links["next"]["url"] if "next" in page.links else ""
    assert [len(page) for page in pages] == [3, 1]
    listed = [each for page in pages for each in page][::-1]
    assert [each["kind"] for each in listed] == ["token", "tenant", "subject", "token"]
    assert [each["token_id"] for each in listed] == [claim_of[0].get("token_id") for claim_of in asked]
    assert [each["tenant_id"] for each in listed] == [None, str(globex), None, None]
    async with plane.databases.registry() as session:
        events = list(await session.scalars(select(AuditEvent).where(AuditEvent.action == "token.revoke")))
    assert [(event.tenant_id, event.details["kind"]) for event in events] == [
        (None, "token"), (globex, "tenant"), (None, "subject"), (None, "token"),
    ]  # fmt: skip
    recorded = str([event.details for event in events]) + str(listed)
    assert not any(token in recorded for token in (one, other, robot, leaked))


SENSELESS: list[tuple[dict[str, Any], int]] = [
    ({}, 400),
    ({"kind": "everything"}, 400),
    ({"kind": "token"}, 400),
    ({"kind": "token", "token_id": "a.b\n"}, 400),
    ({"kind": "token", "token_id": "x" * 256}, 400),
    ({"kind": "token", "token_id": "\u2028"}, 400),
    ({"kind": "token", "token_id": "x", "issued_before": "2026-01-01T00:00:00Z"}, 400),
    ({"kind": "token", "token_id": "x", "expires_at": "2001-01-01T00:00:00Z"}, 400),
    ({"kind": "token", "token_id": "x", "expires_at": "9999-01-01T00:00:00Z"}, 400),
    ({"kind": "subject", "subject": "ci", "issued_before": "2001-01-01T00:00:00Z"}, 400),
    ({"kind": "subject", "subject": "ci", "issued_before": "9999-01-01T00:00:00Z"}, 400),
    ({"kind": "subject", "subject": "ci", "issued_before": "2026-01-01T00:00:00"}, 400),
    ({"kind": "subject", "subject": "ci", "tenant": "acme"}, 400),
    ({"kind": "user", "tenant": "acme"}, 400),
    ({"kind": "tenant", "tenant": "nobody"}, 404),
    ({"kind": "tenant", "tenant": "\0"}, 400),
]


async def test_what_makes_no_sense_is_refused_and_nothing_recorded(plane: ControlPlane, api: httpx.AsyncClient) -> None:
    headers = platform_headers(plane)
    for body, status in SENSELESS:
        answer = await api.post("/revocations", json=body, headers=headers)
        code = {400: "invalid_input", 404: "tenant_not_found"}[status]
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert (await api.get("/revocations", headers=headers)).json() == {"items": [], "next_cursor": None}


async def test_only_the_scopes_of_revocations_give_access(plane: ControlPlane, api: httpx.AsyncClient) -> None:
    body = {"kind": "subject", "subject": "nobody in particular"}
    for scope, expected in (
        ("tenants:write", (403, 403)),
        ("revocations:read", (200, 403)),
        ("revocations:write", (403, 201)),
    ):
        headers = platform_headers(plane, scope)
        answers = (
            await api.get("/revocations", headers=headers),
            await api.post("/revocations", json=body, headers=headers),
        )
        assert tuple(answer.status_code for answer in answers) == expected
    cursor = await api.get("/revocations?cursor=1e3", headers=platform_headers(plane))
    assert (cursor.status_code, cursor.json()["code"]) == (400, "invalid_input")


async def test_a_verb_names_what_is_missing(databases: Databases) -> None:
    for target in (Target("token"), Target("subject"), Target("tenant"), Target("user", tenant="acme")):
        with pytest.raises(InvalidInput):
            await revoke(databases, target, actor="tests")
    with pytest.raises(InvalidInput, match="no time zone"):
        await revoke(databases, Target("subject", subject="ci"), issued_before=datetime(2026, 1, 1), actor="tests")  # noqa: DTZ001


async def test_a_revocation_is_deleted_when_every_token_it_concerns_has_expired(databases: Databases) -> None:
    now = datetime.now(UTC)
    short = await revoke(databases, Target("token", token_id="a"), expires_at=now + timedelta(minutes=5), actor="tests")
    unknown = await revoke(databases, Target("token", token_id="b"), actor="tests")
    cutoff = await revoke(databases, Target("subject", subject="ci"), actor="tests")
    assert [round((each.expires_at - now) / timedelta(days=1)) for each in (short, unknown, cutoff)] == [0, 400, 400]
    assert (await purge(databases))["revocations"] == 0
    # Clocks differ and tokens are granted leeway, so a revocation stays for an hour longer.
    for age, gone in ((timedelta(minutes=59), 0), (timedelta(minutes=61), 1)):
        async with databases.registry.begin() as session:
            await session.execute(update(Revocation).where(Revocation.id == short.id).values(expires_at=now - age))
        assert (await purge(databases))["revocations"] == gone


async def test_ids_are_given_in_the_order_of_commits(databases: Databases) -> None:
    """A reader goes on after the greatest id, so one that is committed later must not be smaller."""
    first = databases.registry()
    async with first.begin():
        early = Revocation(kind="token", token_id="early", expires_at=datetime.now(UTC))
        await table.add(first, early)
        late = asyncio.create_task(revoke(databases, Target("token", token_id="late"), actor="tests"))
        done, _ = await asyncio.wait([late], timeout=0.2)
        assert not done
    await first.close()
    assert (await late).id > early.id


@pytest.mark.parametrize("mode", MODES)
async def test_with_all_notices_dropped_the_database_decides_on_the_next_request(
    settings: Settings, cluster: Cluster, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suspended, moved and deleted elsewhere, while here the token and the placement stay cached."""
    monkeypatch.setattr(RegistryFeed, "_hear", lambda *_: None)
    async with open_plane(settings) as plane, client(create_app(plane)) as api:
        tenant_id = await onboard(plane, "acme", mode)
        headers = bearer(mint_tenant_token(development_issuer(plane.settings), tenant_id, uuid4()))

        async def answered() -> tuple[int, str | None]:
            cached = plane.placements._entries.get(tenant_id)
            assert cached is None or plane.placements.fresh(tenant_id) is cached.placement
            answer = await api.get(PROJECTS, headers=headers)
            return answer.status_code, None if answer.status_code == 200 else answer.json()["code"]

        assert await answered() == (200, None)
        async with open_plane(settings, deaf=True) as elsewhere:
            known = plane.placements.fresh(tenant_id)
            await suspend_tenant(elsewhere.databases, "acme", actor="tests")
            assert plane.placements.fresh(tenant_id) is known
            assert await answered() == (403, "tenant_suspended")
            await resume_tenant(elsewhere.databases, "acme", actor="tests")  # under another epoch, as after a move
            assert await answered() == (200, None)
            epoch = plane.placements.fresh(tenant_id)
            await resume_tenant(elsewhere.databases, "acme", actor="tests")
            assert plane.placements.fresh(tenant_id) is epoch
            assert await answered() == (200, None)
            assert plane.placements.fresh(tenant_id) is not epoch
            await elsewhere.operations.delete_tenant("acme", actor="tests", wait=60)
            assert await answered() == (404, "tenant_not_found")
