"""Issuers `hs`, `rs` and `es`, a verifier that trusts them, and a clock to move."""

from __future__ import annotations

import pytest

from control_plane.identity.keys import KeyRing, public_keys, secret_key
from control_plane.identity.verifier import TokenVerifier, TrustedIssuer
from control_plane.settings import Issuer
from tests.unit.identity.forge import SECRET, Clock, Forge

LEEWAY = 30


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def keys() -> Forge:
    return Forge(Clock())


@pytest.fixture
def forge(keys: Forge, clock: Clock) -> Forge:
    keys.clock = clock
    return keys


@pytest.fixture
def hs_issuer() -> Issuer:
    return Issuer.model_validate({"issuer": "hs", "algorithms": ["HS256"], "secret": SECRET})


@pytest.fixture
def rings(forge: Forge, hs_issuer: Issuer) -> dict[str, KeyRing]:
    return {
        "hs": KeyRing([secret_key(hs_issuer)]),
        "rs": KeyRing(public_keys({"keys": [forge.rsa_jwk()]}, ["RS256"]).values()),
        "es": KeyRing(public_keys({"keys": [forge.ec_jwk()]}, ["ES256"]).values()),
    }


@pytest.fixture
def verifier(rings: dict[str, KeyRing], hs_issuer: Issuer, clock: Clock) -> TokenVerifier:
    return TokenVerifier(
        [
            TrustedIssuer(hs_issuer, rings["hs"]),
            TrustedIssuer(Issuer(issuer="rs", algorithms=["RS256"]), rings["rs"]),
            TrustedIssuer(Issuer(issuer="es", algorithms=["ES256"]), rings["es"]),
        ],
        leeway=LEEWAY,
        cache_size=100,
        clock=clock,
    )
