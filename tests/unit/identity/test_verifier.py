"""What good tokens become, and what the cache may remember."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.errors import ConfigurationError, InvalidToken
from control_plane.identity.keys import KeyRing, public_keys
from control_plane.identity.principal import Principal
from control_plane.identity.tokens import mint_platform_token, mint_tenant_token
from control_plane.identity.verifier import TokenVerifier, build_verifier
from control_plane.settings import Issuer, Settings
from tests.unit.identity.forge import SECRET, TENANT, USER, Clock, Forge


def test_a_tenant_token_names_tenant_user_and_roles(forge: Forge, verifier: TokenVerifier) -> None:
    assert verifier.verify(forge.token(roles=["editor", "admin"])) == Principal(
        kind="tenant",
        subject=str(USER),
        user_id=USER,
        tenant_id=TENANT,
        roles=("editor", "admin"),
        scopes=frozenset(),
        issuer="hs",
        token_id="one",
        expires_at=forge.clock.now + 3600,
    )


def test_a_platform_token_names_scopes_and_neither_tenant_nor_user(forge: Forge, verifier: TokenVerifier) -> None:
    claims = forge.platform_claims(scope="tenants:read  clusters:read", tenant_id=str(TENANT))
    principal = verifier.verify(forge.token(**claims))
    assert (principal.kind, principal.subject, principal.user_id, principal.tenant_id) == (
        "platform",
        "ops",
        None,
        None,
    )
    assert principal.scopes == {"tenants:read", "clusters:read"}
    assert principal.has_scope("tenants:read")
    assert not principal.has_scope("tenants:write")


@pytest.mark.parametrize(
    "changes",
    [
        {"header": {"typ": "at+jwt"}},
        {"header": {"typ": "application/AT+JWT"}},
        {"typ": "Bearer"},
        {"token_use": "access"},
        {"roles": ...},
        {"jti": ...},
        {"exp": 4_000_000_000.5},
        {"nbf": 0},
    ],
    ids=str,
)
def test_what_real_issuers_vary_is_accepted(changes: dict[str, Any], forge: Forge, verifier: TokenVerifier) -> None:
    assert verifier.verify(forge.token(**changes)).tenant_id == TENANT


def test_a_token_without_key_id_takes_the_only_key_and_never_one_of_several(
    forge: Forge, verifier: TokenVerifier, rings: dict[str, KeyRing]
) -> None:
    token = forge.raw('{"alg":"RS256"}', forge.claims(iss="rs"), forge.rs)
    assert verifier.verify(token).tenant_id == TENANT
    rings["rs"].replace(public_keys({"keys": [forge.rsa_jwk(), forge.ec_jwk()]}, ["RS256", "ES256"]))
    with pytest.raises(InvalidToken):
        verifier.verify(token)


def test_attack_65_a_removed_key_ends_its_cached_tokens(
    forge: Forge, verifier: TokenVerifier, rings: dict[str, KeyRing]
) -> None:
    token, other = forge.rs_token(), forge.es_token()
    assert verifier.verify(token) is verifier.verify(token)
    rings["rs"].replace(public_keys({"keys": [forge.rsa_jwk(kid="new")]}, ["RS256"]))
    with pytest.raises(InvalidToken):
        verifier.verify(token)
    assert verifier.verify(forge.rs_token(header={"kid": "new"})).tenant_id == TENANT
    assert verifier.verify(other).tenant_id == TENANT


def test_attack_65_another_key_under_the_same_id_ends_its_cached_tokens(
    forge: Forge, verifier: TokenVerifier, rings: dict[str, KeyRing]
) -> None:
    token = forge.rs_token()
    verifier.verify(token)
    rings["rs"].replace(public_keys({"keys": [Forge(forge.clock).rsa_jwk()]}, ["RS256"]))
    with pytest.raises(InvalidToken, match="signature"):
        verifier.verify(token)


def test_the_same_keys_fetched_again_leave_the_cache_alone(
    forge: Forge, verifier: TokenVerifier, rings: dict[str, KeyRing]
) -> None:
    first = verifier.verify(forge.rs_token())
    assert not rings["rs"].replace(public_keys({"keys": [forge.rsa_jwk()]}, ["RS256"]))
    assert verifier.verify(forge.rs_token()) is first


def test_a_cached_token_expires_and_leaves_the_cache(forge: Forge, verifier: TokenVerifier) -> None:
    token = forge.token(exp=int(forge.clock.now) + 60)
    verifier.verify(token)
    forge.clock.now += 89
    verifier.verify(token)
    forge.clock.now += 1
    with pytest.raises(InvalidToken, match="expired"):
        verifier.verify(token)
    assert len(verifier._cache) == 0


def test_a_cached_token_is_not_valid_before_its_time(forge: Forge, verifier: TokenVerifier) -> None:
    token = forge.token(nbf=int(forge.clock.now))
    verifier.verify(token)
    forge.clock.now -= 31
    with pytest.raises(InvalidToken):
        verifier.verify(token)


def test_the_cache_forgets_the_least_recently_used(forge: Forge, verifier: TokenVerifier) -> None:
    tokens = [forge.token(jti=str(number)) for number in range(101)]
    kept = [verifier.verify(token) for token in tokens[:100]]
    assert verifier.verify(tokens[0]) is kept[0]
    verifier.verify(tokens[100])
    assert len(verifier._cache) == 100
    assert verifier.verify(tokens[0]) is kept[0]
    assert verifier.verify(tokens[1]) is not kept[1]


def test_without_a_cache_every_token_is_verified(clock: Clock) -> None:
    verifier = build_verifier(Settings.model_validate({"signing_key": SECRET, "token_cache_size": 0}), clock=clock)
    token = mint_tenant_token(development(), TENANT)
    assert verifier.verify(token) == verifier.verify(token)
    assert len(verifier._cache) == 0


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_mutation_of_a_token_is_another_token(data: st.DataObject, forge: Forge, verifier: TokenVerifier) -> None:
    token = data.draw(st.sampled_from([forge.token(), forge.rs_token()]))
    principal = verifier.verify(token)
    at = data.draw(st.integers(0, len(token)))
    until = data.draw(st.integers(at, min(len(token), at + 8)))
    mutated = token[:at] + data.draw(st.text(max_size=8) | st.text("AQgwEIM.-_=", max_size=8)) + token[until:]
    if mutated == token:
        assert verifier.verify(mutated) is principal
    else:
        with pytest.raises(InvalidToken):
            verifier.verify(mutated)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["iss", "sub", "aud", "exp", "iat", "nbf", "tenant_id", "roles", "jti", "typ", "token_use"])
HEADERS = st.sampled_from(["alg", "kid", "typ", "crit", "jku", "x5c"])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(claims=st.dictionaries(NAMES, JSON, max_size=4), header=st.dictionaries(HEADERS, JSON, max_size=2))
def test_a_signed_token_with_any_claims_is_either_refused_or_well_typed(
    claims: dict[str, Any], header: dict[str, Any], forge: Forge, verifier: TokenVerifier
) -> None:
    try:
        principal = verifier.verify(forge.token(header=header, **claims))
    except InvalidToken:
        return
    assert (principal.kind, principal.issuer) == ("tenant", "hs")
    assert principal.tenant_id == TENANT
    assert all(0 < len(role) <= 64 for role in principal.roles)


def development(**changes: Any) -> Issuer:
    return Issuer.model_validate({"issuer": "control-plane-dev", "algorithms": ["HS256"], "secret": SECRET, **changes})


def test_minted_tokens_are_verified_with_the_signing_key() -> None:
    verifier = build_verifier(Settings.model_validate({"signing_key": SECRET}))
    tenant = verifier.verify(mint_tenant_token(development(), TENANT, USER, ["admin"], 60))
    assert (tenant.kind, tenant.tenant_id, tenant.user_id, tenant.roles) == ("tenant", TENANT, USER, ("admin",))
    platform = verifier.verify(mint_platform_token(development(), scopes=["tenants:read"]))
    assert (platform.kind, platform.scopes) == ("platform", frozenset({"tenants:read"}))
    assert verifier.verify(mint_platform_token(development())).has_scope("migrations:write")
    assert mint_tenant_token(development(), TENANT, USER) != mint_tenant_token(development(), TENANT, USER)
    with pytest.raises(InvalidToken, match="expired"):
        verifier.verify(mint_tenant_token(development(), TENANT, ttl=-60))


def test_a_configured_issuer_has_its_own_claims_audiences_and_key_id() -> None:
    issuer = development(
        issuer="https://id.example", key_id="k1", tenant_claim="org", roles_claim="groups", tenant_audience="app"
    )
    verifier = build_verifier(Settings(issuers=[issuer]))
    principal = verifier.verify(mint_tenant_token(issuer, TENANT, USER, ["admin"]))
    assert (principal.tenant_id, principal.roles, principal.issuer) == (TENANT, ("admin",), "https://id.example")


def test_an_issuer_that_publishes_its_keys_mints_its_own_tokens() -> None:
    with pytest.raises(ConfigurationError, match="has no secret"):
        mint_platform_token(Issuer(issuer="rs", jwks_url="https://id.example/keys"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"secret": "x" * 31}, "shorter than 32 bytes"),
        ({"secret": "-----BEGIN PUBLIC KEY-----\n" + "x" * 32}, "must not sign HS256"),
        ({"algorithms": ["HS256", "RS256"]}, "its only algorithm is HS256"),
        ({"jwks_url": "https://id.example/keys"}, "has no jwks_url"),
        ({"secret": None}, "needs a secret"),
        ({"secret": None, "algorithms": []}, "no algorithm"),
        ({"secret": None, "algorithms": ["RS256"]}, "needs a secret"),
        ({"secret": None, "algorithms": ["RS256"], "jwks_url": "http://id.example/keys"}, "without https"),
        ({"secret": None, "algorithms": ["RS256"], "jwks_url": "file:///etc/passwd"}, "not an https address"),
        ({"tenant_audience": "api", "platform_audience": "api"}, "one audience"),
    ],
)
def test_attack_65_an_issuer_that_cannot_be_trusted_stops_the_start(changes: dict[str, Any], problem: str) -> None:
    build_verifier(Settings(issuers=[development()]))
    with pytest.raises(ConfigurationError, match=problem):
        build_verifier(Settings(issuers=[development(**changes)]))


def test_attack_65_a_short_signing_key_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="shorter than 32 bytes"):
        build_verifier(Settings.model_validate({"signing_key": "x" * 31}))


def test_an_issuer_is_configured_once() -> None:
    with pytest.raises(ConfigurationError, match="configured twice"):
        build_verifier(Settings.model_validate({"signing_key": SECRET, "issuers": [development()]}))
