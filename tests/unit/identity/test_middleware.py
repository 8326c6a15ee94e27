"""From headers to the caller, and what endpoints may demand of it."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.errors import InsufficientScope, InvalidToken, Unauthenticated, WrongTokenKind
from control_plane.identity.middleware import IdentityMiddleware, require_platform, require_principal, require_tenant
from control_plane.identity.verifier import TokenVerifier
from tests.support.mutation import mutated
from tests.unit.identity.forge import TENANT, Forge

Headers = list[tuple[bytes, bytes]]


async def call(verifier: TokenVerifier, headers: Headers, **scope: Any) -> dict[str, Any]:
    """The scope that the application behind the middleware sees."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def unused(*_: Any) -> Any:
        raise AssertionError("the middleware neither reads nor answers")

    await IdentityMiddleware(app, verifier)({"type": "http", "headers": headers, **scope}, unused, unused)
    result: dict[str, Any] = seen[0]
    return result


def bearer(token: str, scheme: str = "Bearer") -> Headers:
    return [(b"authorization", f"{scheme} {token}".encode("latin-1"))]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_bearer_of_the_token_is_the_caller(
    kind: str, scheme: str, forge: Forge, verifier: TokenVerifier
) -> None:
    scope = await call(verifier, bearer(forge.token(), scheme), type=kind)
    assert require_tenant(scope).tenant_id == TENANT


async def test_without_a_token_the_application_is_called_and_may_demand_one(verifier: TokenVerifier) -> None:
    scope = await call(verifier, [])
    assert scope["state"]["principal"] is None
    with pytest.raises(Unauthenticated) as refused:
        require_tenant(scope)
    assert refused.value.code == "unauthenticated"
    with pytest.raises(Unauthenticated):
        require_platform(scope, "tenants:read")


async def test_a_door_that_stands_open_is_noticed(verifier: TokenVerifier) -> None:
    """Attack 41: `nobody is somebody`."""
    with (
        mutated(require_principal, "isinstance(principal, Principal)", "True"),
        pytest.raises((AssertionError, AttributeError, pytest.fail.Exception)),
    ):
        await test_without_a_token_the_application_is_called_and_may_demand_one(verifier)


def test_without_the_middleware_nobody_is_the_caller() -> None:
    with pytest.raises(Unauthenticated):
        require_tenant({"type": "http"})


@pytest.mark.parametrize(
    "headers",
    [
        lambda good: bearer(good) * 2,
        lambda good: [*bearer(good), (b"Authorization", b"Basic YTpi")],
        lambda good: bearer("Bearer " + good),
        lambda good: bearer(good + ", Bearer " + good),
        lambda good: bearer(good + " x"),
        lambda good: bearer(" " + good),
        lambda good: bearer(""),
        lambda good: bearer(good + "\xff"),
        lambda good: bearer("x" * 1_000_000),
    ],
    ids=["twice", "and Basic", "Bearer Bearer", "list", "two", "two spaces", "empty", "latin-1", "megabyte"],
)
async def test_attack_43_a_header_with_two_readings_is_invalid(
    headers: Any, forge: Forge, verifier: TokenVerifier
) -> None:
    assert require_tenant(await call(verifier, bearer(forge.token()))).tenant_id == TENANT
    scope = await call(verifier, headers(forge.token()))
    with pytest.raises(InvalidToken):
        require_tenant(scope)


async def test_attack_43_a_token_elsewhere_is_no_token(forge: Forge, verifier: TokenVerifier) -> None:
    token = forge.token().encode()
    headers = [(b"cookie", b"access_token=" + token), (b"x-authorization", b"Bearer " + token)]
    scope = await call(verifier, headers, query_string=b"access_token=" + token + b"&token=" + token)
    with pytest.raises(Unauthenticated):
        require_tenant(scope)
    for other in (b"Basic " + token, token, b"Bearer", b"Bearer\t" + token):
        with pytest.raises(Unauthenticated):
            require_tenant(await call(verifier, [(b"authorization", other)]))


async def test_attack_42_the_tenant_comes_from_the_token_alone(forge: Forge, verifier: TokenVerifier) -> None:
    other = b"33333333-3333-4333-8333-333333333333"
    headers = [*bearer(forge.token()), (b"x-tenant-id", other), (b"host", other)]
    scope = await call(verifier, headers, query_string=b"tenant_id=" + other)
    assert require_tenant(scope).tenant_id == TENANT
    with pytest.raises(Unauthenticated):
        require_tenant(await call(verifier, [(b"x-tenant-id", str(TENANT).encode())]))


async def test_each_kind_of_token_opens_its_own_doors(forge: Forge, verifier: TokenVerifier) -> None:
    tenant = await call(verifier, bearer(forge.token()))
    platform = await call(verifier, bearer(forge.token(**forge.platform_claims())))
    anything = await call(verifier, bearer(forge.token(**forge.platform_claims(scope="*"))))
    nothing = await call(verifier, bearer(forge.token(**forge.platform_claims(scope=...))))
    assert require_tenant(tenant).kind == "tenant"
    assert require_platform(platform, "tenants:read").subject == "ops"
    assert require_platform(anything, "clusters:write").subject == "ops"
    with pytest.raises(WrongTokenKind):
        require_platform(tenant, "tenants:read")
    with pytest.raises(WrongTokenKind):
        require_tenant(platform)
    for scope in (platform, nothing):
        with pytest.raises(InsufficientScope):
            require_platform(scope, "tenants:write")


async def test_a_principal_does_not_outlive_its_request(forge: Forge, verifier: TokenVerifier) -> None:
    shared = {"pool": "of the lifespan"}
    first = await call(verifier, bearer(forge.token()), state=shared)
    second = await call(verifier, [], state=first["state"])
    assert first["state"]["pool"] == second["state"]["pool"] == "of the lifespan"
    assert shared == {"pool": "of the lifespan"}
    assert require_tenant(first).tenant_id == TENANT
    with pytest.raises(Unauthenticated):
        require_tenant(second)


async def test_the_lifespan_passes_untouched(verifier: TokenVerifier) -> None:
    shared: dict[str, Any] = {}
    scope = await call(verifier, [], type="lifespan", state=shared)
    assert scope["state"] is shared
    assert shared == {}
