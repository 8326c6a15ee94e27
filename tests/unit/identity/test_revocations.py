"""Tokens that were taken back are refused, whether they are cached or not, and nobody else's are."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from control_plane.errors import InvalidToken, RegistryUnavailable
from control_plane.identity.cache import SHARE
from control_plane.identity.claims import MAX_AGE
from control_plane.identity.middleware import require_tenant
from control_plane.identity.revocations import Revocation
from control_plane.identity.verifier import TokenVerifier
from tests.unit.identity.forge import TENANT, USER, Forge
from tests.unit.identity.test_middleware import bearer, call

SIZE = 100  # of the verifier's cache


def now(forge: Forge) -> int:
    return int(forge.clock.now)


def revocations(forge: Forge) -> dict[str, Revocation]:
    """Each takes back the tokens that `forge.token()` makes at this moment."""
    later = now(forge) + 1.0
    return {
        "token": Revocation(token_id="one"),
        "user": Revocation(TENANT, str(USER), issued_before=later),
        "tenant": Revocation(TENANT, issued_before=later),
    }


def refused(verifier: TokenVerifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except InvalidToken as error:
        if error.message != "The token has been revoked.":
            raise
        return True
    return False


@pytest.mark.parametrize("kind", ["token", "user", "tenant"])
@pytest.mark.parametrize("cached", [True, False])
def test_attack_65_a_revoked_token_dies_on_its_next_use(
    kind: str, cached: bool, forge: Forge, verifier: TokenVerifier
) -> None:
    token = forge.token()
    if cached:
        verifier.verify(token)
    verifier.revocations.add([revocations(forge)[kind]])
    assert [refused(verifier, token) for _ in range(2)] == [True, True]
    assert len(verifier._cache) == 0


@pytest.mark.parametrize("changes", [{"token_id": "one"}, {"subject": "ops", "issued_before": 2e9}], ids=str)
def test_attack_65_a_revoked_platform_token_dies_on_its_next_use(
    changes: dict[str, Any], forge: Forge, verifier: TokenVerifier
) -> None:
    forge.clock.now = 1.9e9
    token, other = (
        forge.token(**forge.platform_claims(sub=sub, jti=jti)) for sub, jti in (("ops", "one"), ("ci", "2"))
    )
    verifier.verify(token)
    verifier.verify(other)
    verifier.revocations.add([Revocation(**changes)])
    assert refused(verifier, token)
    assert not refused(verifier, other)


@pytest.mark.parametrize("kind", ["token", "user", "tenant"])
def test_a_revocation_concerns_nobody_else(kind: str, forge: Forge, verifier: TokenVerifier) -> None:
    others = {
        "of another id": forge.token(jti="two"),
        "of another user": forge.token(sub=str(uuid4()), jti="two"),
        "of the user's name in another tenant": forge.token(tenant_id=str(uuid4()), jti="two"),
        "of a platform subject with the user's id": forge.token(**forge.platform_claims(sub=str(USER), jti="two")),
        "without an id": forge.token(jti=...),
        "issued since": forge.token(iat=now(forge) + 1, jti="two"),
    }
    for token in others.values():
        verifier.verify(token)
    verifier.revocations.add([revocations(forge)[kind]])
    assert {what for what, token in others.items() if refused(verifier, token)} == {
        "token": set(),
        "user": {"of another id", "without an id"},
        "tenant": {"of another id", "of another user", "without an id"},
    }[kind]


def test_of_two_revocations_the_later_moment_counts(forge: Forge, verifier: TokenVerifier) -> None:
    verifier.revocations.add(Revocation(TENANT, issued_before=now(forge) + each) for each in (1.0, -60.0))
    assert refused(verifier, forge.token())


def test_a_cached_token_that_survives_a_revocation_stays_cached(forge: Forge, verifier: TokenVerifier) -> None:
    """Where logging out is a revocation, they come all the time: emptying the cache would be having none."""
    token = forge.token()
    principal = verifier.verify(token)
    verifier.revocations.add([Revocation(token_id="another")])
    assert verifier.verify(token) is principal


def test_the_same_revocations_read_again_change_nothing(forge: Forge, verifier: TokenVerifier) -> None:
    made = list(revocations(forge).values())
    verifier.revocations.replace(made)
    version = verifier.revocations.version
    verifier.revocations.replace(made)
    assert (verifier.revocations.version, len(verifier.revocations)) == (version, 3)
    verifier.revocations.replace([])
    assert not refused(verifier, forge.token())


def test_a_refusal_is_not_remembered(forge: Forge, verifier: TokenVerifier) -> None:
    forge.clock.now -= 120  # python-jose asks a clock of its own
    token = forge.token(nbf=now(forge) + 60)
    with pytest.raises(InvalidToken, match="not valid yet"):
        verifier.verify(token)
    forge.clock.now += 60
    assert verifier.verify(token).tenant_id == TENANT


async def test_when_nobody_knows_what_was_revoked_a_good_token_gets_a_503_and_stays_cached(
    forge: Forge, verifier: TokenVerifier
) -> None:
    token = forge.token()
    principal = verifier.verify(token)
    verifier.revocations.trust(False)
    for each in (token, forge.token(jti="new")):
        with pytest.raises(RegistryUnavailable):
            verifier.verify(each)
    scope = await call(verifier, bearer(token))
    assert scope["state"]["principal"] is None
    with pytest.raises(RegistryUnavailable) as answer:
        require_tenant(scope)
    assert (answer.value.status, answer.value.retry_after) == (503, 2)
    with pytest.raises(InvalidToken, match="signature"):  # a stranger learns nothing of our troubles
        verifier.verify(forge.token(sign=lambda _: b"x" * 32))
    verifier.revocations.trust(True)
    assert verifier.verify(token) is principal


@pytest.mark.parametrize("cached", [True, False])
def test_a_token_is_refused_when_its_revocation_may_have_been_deleted(
    cached: bool, forge: Forge, verifier: TokenVerifier
) -> None:
    token = forge.token(exp=now(forge) + 10 * MAX_AGE)
    if cached:
        verifier.verify(token)
    forge.clock.now += MAX_AGE + 29
    verifier.verify(token)
    forge.clock.now += 1
    with pytest.raises(InvalidToken, match="more than 400 days ago"):
        verifier.verify(token)


def test_a_tenant_with_ever_new_tokens_does_not_drive_out_the_others(forge: Forge, verifier: TokenVerifier) -> None:
    quiet = [forge.token(tenant_id=str(uuid4())) for _ in range(SIZE - SIZE // SHARE)]
    known = [verifier.verify(token) for token in quiet]
    for number in range(2 * SIZE):
        verifier.verify(forge.token(jti=str(number)))
    assert len(verifier._cache) == SIZE
    assert all(verifier.verify(token) is principal for token, principal in zip(quiet, known, strict=True))


def test_a_tenant_that_is_alone_has_the_whole_cache(forge: Forge, verifier: TokenVerifier) -> None:
    tokens = [forge.token(jti=str(number)) for number in range(SIZE)]
    kept = [verifier.verify(token) for token in tokens]
    assert all(verifier.verify(token) is principal for token, principal in zip(tokens, kept, strict=True))
    verifier.verify(forge.token(jti="one more"))
    assert verifier.verify(tokens[-1]) is kept[-1]
    assert verifier.verify(tokens[0]) is not kept[0]


def test_a_hit_looks_at_no_other_entry(forge: Forge, verifier: TokenVerifier) -> None:
    """A purge on the way of requests costs more than the cache saves; the bound of the cache is enough."""
    stale = [forge.token(jti=str(number), exp=now(forge) + 60) for number in range(SIZE // 2)]
    for token in [*stale, forge.token()]:
        verifier.verify(token)
    forge.clock.now += 600
    verifier.verify(forge.token(iat=now(forge) - 600, exp=now(forge) + 3000))  # the one above, byte for byte
    assert len(verifier._cache) == SIZE // 2 + 1
    with pytest.raises(InvalidToken, match="expired"):
        verifier.verify(stale[0])
    assert len(verifier._cache) == SIZE // 2
    assert sum(map(len, verifier._cache._keys_of.values())) == SIZE // 2
