"""Take out one guard of the verifier and its own attacks must be seen to pass.

The tests of the attacks name what each refusal says, so a guard is missed even where a later one still refuses.
"""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.identity import claims, structure, verifier
from control_plane.identity.cache import TokenCache
from control_plane.identity.claims import Claims
from control_plane.identity.keys import KeyRing, secret_key
from control_plane.identity.middleware import bearer_token
from control_plane.identity.revocations import Revocations
from control_plane.identity.verifier import TokenVerifier
from tests.support.mutation import mutated
from tests.unit.identity import test_attacks, test_middleware, test_revocations, test_verifier
from tests.unit.identity.forge import Forge

RED = (AssertionError, pytest.fail.Exception)

# name: number of the attack, function, what is taken out, what stands there instead
MUTATIONS: dict[str, tuple[int, Any, str, str]] = {
    "a tenant may be spelt in many ways": (42, claims._uuid, "or str(parsed) != value", ""),
    "the algorithm is the token's choice": (46, verifier._key, "unverified.algorithm != key.algorithm", "False"),
    "a public key may be a secret": (47, verifier._key, "unverified.algorithm != key.algorithm", "False"),
    "a sister of the algorithm will do": (48, verifier._key, "unverified.algorithm != key.algorithm", "False"),
    "a part of the algorithm's name will do": (49, verifier._key, "unverified.algorithm != key.algorithm", "False"),
    "the audience may be absent": (50, claims.read_claims, "in REQUIRED", "in ('iss', 'sub', 'exp', 'iat')"),
    "the expiry may be absent": (51, claims.read_claims, "in REQUIRED", "in ('iss', 'sub', 'aud')"),
    "any issuer is trusted": (
        52,
        TokenVerifier._issuer,
        "self._issuers.get(name) if isinstance(name, str) else None",
        "self._issuers.get(str(name), self._issuers['hs'])",
    ),
    "a token may be for both audiences": (53, claims._audience, "for_tenant == for_platform", "not for_tenant"),
    "infinity is a time": (54, claims._time, "or not 0 <= value < MAX_TIME", ""),
    "critical extensions are overlooked": (55, structure.read_structure, "name in header", "False"),
    "a list is a header": (56, structure._object, "not isinstance(value, dict)", "False"),
    "a token may be of any length": (57, TokenVerifier.verify, "len(token) > MAX_TOKEN", "False"),
    "one signature has several spellings": (
        58,
        structure._decode,
        'urlsafe_b64encode(data).rstrip(b"=").decode() != segment',
        "False",
    ),
    "the last of two keys wins": (59, structure._unique_keys, "len(value) != len(pairs)", "False"),
    "a token may have five parts": (60, structure.read_structure, "len(segments) != 3", "len(segments) < 3"),
    "a key id may be anything": (
        61,
        structure._key_id,
        "not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID",
        "False",
    ),
    "nobody looks whether the issuer has the key": (64, verifier._key, "if key is None:", "if False:"),
    "a refresh token will do": (64, claims._require_access_token, "str(claims[name]).lower() not in allowed", "False"),
    "an ID token will do": (64, claims._require_access_token, "if name in claims:", "if False:"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_verifier_without_the_guard_lets_an_attack_pass(mutation: str, forge: Forge, verifier: TokenVerifier) -> None:
    number, function, old, new = MUTATIONS[mutation]
    check = test_attacks.test_a_forged_or_malformed_token_is_refused_by_the_guard_against_it
    rows = [(attack, refusal) for n, _, attack, refusal in test_attacks.ATTACKS if n == number]
    assert rows
    red = 0
    for attack, refusal in rows:
        verifier._cache = TokenCache(100, verifier.revocations)
        check(attack, refusal, forge, verifier)
        verifier._cache = TokenCache(100, verifier.revocations)
        with mutated(function, old, new):
            try:
                check(attack, refusal, forge, verifier)
            except RED:
                red += 1
    assert red, f"no attack {number} is noticed without its guard"


def test_without_a_bound_of_nesting_depth_costs_more_than_two_counts() -> None:
    """Attack 56: `nesting has no bound`."""
    deep = b"[" * 500 + b"]" * 500
    with pytest.raises(ValueError, match="too deeply"):
        structure.parse_json(deep)
    with mutated(structure.parse_json, 'data.count(b"[") + data.count(b"{") > MAX_BRACKETS', "False"):
        assert structure.parse_json(deep)


def test_a_clock_that_is_left_to_python_jose_is_noticed(forge: Forge, verifier: TokenVerifier) -> None:
    """Attack 54: `a token never expires`."""
    with (
        mutated(claims.Claims.check_time, "now >= self.principal.expires_at + leeway", "False"),
        pytest.raises(RED),
    ):
        test_attacks.test_attack_54_whatever_python_jose_thinks_of_the_time_ours_is_checked(forge, verifier)


async def test_two_headers_with_the_first_of_them_believed_are_noticed(forge: Forge, verifier: TokenVerifier) -> None:
    """Attack 43: `the first of two headers counts`."""
    check = test_middleware.test_attack_43_a_header_with_two_readings_is_invalid
    await check(lambda good: test_middleware.bearer(good) * 2, forge, verifier)
    with mutated(bearer_token, "if len(values) > 1:", "if False:"), pytest.raises(RED):
        await check(lambda good: test_middleware.bearer(good) * 2, forge, verifier)


async def test_a_token_from_another_header_is_noticed(forge: Forge, verifier: TokenVerifier) -> None:
    """Attacks 42 and 43: `any header may carry the token`."""
    check = test_middleware.test_attack_43_a_token_elsewhere_is_no_token
    await check(forge, verifier)
    with (
        mutated(bearer_token, 'name.lower() == b"authorization"', 'name.lower().endswith(b"authorization")'),
        pytest.raises(RED),
    ):
        await check(forge, verifier)


def test_a_cache_that_outlives_its_keys_is_noticed(
    forge: Forge, verifier: TokenVerifier, rings: dict[str, KeyRing]
) -> None:
    """Attack 65: `cached tokens outlive their key`."""
    with mutated(TokenCache.get, "and entry.ring_version == entry.ring.version", ""), pytest.raises(RED):
        test_verifier.test_attack_65_a_removed_key_ends_its_cached_tokens(forge, verifier, rings)


def test_a_weak_secret_that_is_accepted_is_noticed() -> None:
    """Attack 65: `a secret may be short`."""
    test_verifier.test_attack_65_a_short_signing_key_stops_the_start()
    with mutated(secret_key, "len(secret) < MIN_SECRET", "False"), pytest.raises(RED):
        test_verifier.test_attack_65_a_short_signing_key_stops_the_start()


@pytest.mark.parametrize("cached", [True, False])
def test_a_verifier_that_asks_nobody_what_was_revoked_is_noticed(
    cached: bool, forge: Forge, verifier: TokenVerifier
) -> None:
    """Attacks 44 and 65: `a revoked token stays cached` and `a revoked token is good once more`."""
    check = test_revocations.test_attack_65_a_revoked_token_dies_on_its_next_use
    function, question = (
        (TokenCache._check, "self._revocations.check(entry.principal, entry.issued_at)")
        if cached
        else (TokenVerifier._verify, "self.revocations.check(claims.principal, claims.issued_at)")
    )
    with mutated(function, question, "pass"), pytest.raises(RED):
        check("user", cached, forge, verifier)


def test_a_cache_that_does_not_see_new_revocations_is_noticed(forge: Forge, verifier: TokenVerifier) -> None:
    """Attack 65: `a cached token is not looked at again`."""
    with mutated(TokenCache.get, "entry.checked == self._revocations.version", "True"), pytest.raises(RED):
        test_revocations.test_attack_65_a_revoked_token_dies_on_its_next_use("token", True, forge, verifier)


def test_a_revocation_of_a_user_that_spares_old_tokens_is_noticed(forge: Forge, verifier: TokenVerifier) -> None:
    """Attack 44: `the moment of a revocation does not count`."""
    with mutated(Revocations.check, "issued_at < self._issued_before.get(whose, 0.0)", "False"), pytest.raises(RED):
        test_revocations.test_attack_65_a_revoked_token_dies_on_its_next_use("tenant", True, forge, verifier)


def test_a_token_without_a_greatest_age_is_noticed(forge: Forge, verifier: TokenVerifier) -> None:
    """Attack 65: `a token outlives its revocation`."""
    with mutated(Claims.check_time, "now >= self.valid_until + leeway", "False"), pytest.raises(RED):
        test_revocations.test_a_token_is_refused_when_its_revocation_may_have_been_deleted(False, forge, verifier)


def test_a_cache_that_one_tenant_may_fill_is_noticed(forge: Forge, verifier: TokenVerifier) -> None:
    with mutated(TokenCache.put, "len(own) > self._share and", "False and"), pytest.raises(RED):
        test_revocations.test_a_tenant_with_ever_new_tokens_does_not_drive_out_the_others(forge, verifier)
