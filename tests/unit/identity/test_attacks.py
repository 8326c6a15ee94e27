"""Attacks on the verifier, one row each. The number of a row is that of the attack in the checklist of the issue.

Every row names what the refusal says, so that a row goes red when its own guard is gone, even if another guard
still refuses; and every row begins with a good token of the same issuer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from control_plane.errors import InvalidToken
from control_plane.identity.structure import MAX_TOKEN
from control_plane.identity.verifier import TokenVerifier
from tests.unit.identity.forge import TENANT, Forge, decode, encode

Attack = Callable[[Forge], str]
OTHER = "33333333-3333-4333-8333-333333333333"


def swapped(token: str, part: int, change: Callable[[str], str]) -> str:
    parts = token.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def non_canonical(segment: str) -> str:
    """Another spelling of the same bytes: a bit that base64 throws away is set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet[alphabet.index(segment[-1]) | 1]
    other = segment[:-1] + last
    assert other != segment
    assert decode(other) == decode(segment)
    return other


def duplicate(forge: Forge, name: str, first: Any) -> str:
    claims = json.dumps(forge.claims())
    return forge.raw('{"alg":"HS256"}', f'{{"{name}":{json.dumps(first)},{claims[1:]}')


def with_value(name: str, value: Any) -> Attack:
    return lambda forge: forge.token(**{name: value})


def with_number(name: str, literal: str) -> Attack:
    def build(forge: Forge) -> str:
        claims = json.dumps(forge.claims(**{name: "@"})).replace('"@"', literal)
        return forge.raw('{"alg":"HS256"}', claims)

    return build


TIME = "is not a time in seconds"
SIGNATURE = "signature is not valid"
ALGORITHM = "algorithm is not that of its key"
UUID_ = "is not a UUID"

NO_TIMES: list[Any] = [None, [], {}, "9999999999", True, -1, 10**12, 10**400]

ATTACKS: list[tuple[int, str, Attack, str]] = [
    (42, "no tenant claim", lambda f: f.token(tenant_id=...), UUID_),
    (42, "empty tenant", lambda f: f.token(tenant_id=""), UUID_),
    (42, "array of tenants", lambda f: f.token(tenant_id=[str(TENANT)]), UUID_),
    (42, "number as tenant", lambda f: f.token(tenant_id=TENANT.int), UUID_),
    (42, "null tenant", lambda f: f.token(tenant_id=None), UUID_),
    (42, "slug as tenant", lambda f: f.token(tenant_id="acme"), UUID_),
    (42, "tenant in braces", lambda f: f.token(tenant_id=f"{{{TENANT}}}"), UUID_),
    (42, "tenant as urn", lambda f: f.token(tenant_id=TENANT.urn), UUID_),
    (42, "tenant without hyphens", lambda f: f.token(tenant_id=TENANT.hex), UUID_),
    (42, "tenant in capitals", lambda f: f.token(tenant_id="ABCDEF00-1111-4111-8111-111111111111"), UUID_),
    (42, "user that is no uuid", lambda f: f.token(sub="alice"), UUID_),
    (46, "alg none", lambda f: f.token(header={"alg": "none"}), ALGORITHM),
    (46, "alg None", lambda f: f.token(header={"alg": "None"}), ALGORITHM),
    (46, "alg nOnE", lambda f: f.token(header={"alg": "nOnE"}), ALGORITHM),
    (46, "alg null", lambda f: f.token(header={"alg": None}), "names no algorithm"),
    (46, "alg array", lambda f: f.token(header={"alg": ["HS256"]}), "names no algorithm"),
    (46, "no alg", lambda f: f.raw('{"typ":"JWT"}', f.claims()), "names no algorithm"),
    (46, "empty signature", lambda f: swapped(f.token(), 2, lambda _: ""), "not base64url"),
    (46, "no signature", lambda f: f.token().rpartition(".")[0], "three parts"),
    (46, "another signature", lambda f: f.token(sign=lambda m: f.hs(m, b"x" * 32)), SIGNATURE),
    (46, "short signature", lambda f: f.token(sign=lambda m: f.hs(m)[:16]), SIGNATURE),
    (46, "RSA token, another's signature", lambda f: f.rs_token(sign=f.es), SIGNATURE),
    (46, "EC token, signature of zeroes", lambda f: f.es_token(sign=lambda _: bytes(64)), SIGNATURE),
    (46, "EC token, DER signature of the wrong length", lambda f: f.es_token(sign=lambda m: f.es(m) + b"x"), SIGNATURE),
    (
        47,
        "HS256 with the public key as PEM",
        lambda f: f.rs_token(header={"alg": "HS256"}, sign=lambda m: f.hs(m, f.public_pem())),
        ALGORITHM,
    ),
    (
        47,
        "HS256 with the public key as DER",
        lambda f: f.rs_token(header={"alg": "HS256"}, sign=lambda m: f.hs(m, f.public_der())),
        ALGORITHM,
    ),
    (48, "HS512", lambda f: f.token(header={"alg": "HS512"}, sign=lambda m: f.hs(m, digest="sha512")), ALGORITHM),
    (48, "RS384", lambda f: f.rs_token(header={"alg": "RS384"}, sign=f.rs384), ALGORITHM),
    (48, "RS256 with an EC key", lambda f: f.es_token(header={"alg": "RS256"}), ALGORITHM),
    (49, "alg that is part of ours", lambda f: f.token(header={"alg": "HS"}), ALGORITHM),
    (49, "empty alg", lambda f: f.token(header={"alg": ""}), ALGORITHM),
    (50, "no aud", lambda f: f.token(aud=...), "lacks the claim 'aud'"),
    (50, "another aud", lambda f: f.token(aud="other-api"), "exactly one audience"),
    (50, "aud that contains ours", lambda f: f.token(aud="tenant-api-2"), "exactly one audience"),
    (50, "null aud", lambda f: f.token(aud=None), "'aud' is not"),
    (50, "aud object", lambda f: f.token(aud={"tenant-api": 1}), "'aud' is not"),
    (51, "no exp", lambda f: f.token(exp=...), "lacks the claim 'exp'"),
    (51, "no iat", lambda f: f.token(iat=...), "lacks the claim 'iat'"),
    (51, "no sub", lambda f: f.token(sub=...), "lacks the claim 'sub'"),
    (52, "no iss", lambda f: f.token(iss=...), "issuer is not trusted"),
    (52, "another iss", lambda f: f.token(iss="hs2"), "issuer is not trusted"),
    (52, "part of an iss", lambda f: f.token(iss="h"), "issuer is not trusted"),
    (52, "iss with a slash", lambda f: f.token(iss="hs/"), "issuer is not trusted"),
    (52, "iss array", lambda f: f.token(iss=["hs"]), "issuer is not trusted"),
    (52, "iss object", lambda f: f.token(iss={"hs": 1}), "issuer is not trusted"),
    (53, "both audiences", lambda f: f.token(aud=["tenant-api", "platform-api"]), "exactly one audience"),
    (53, "no audience in the array", lambda f: f.token(aud=[]), "exactly one audience"),
    (53, "audiences that are no strings", lambda f: f.token(aud=["tenant-api", 1]), "'aud' is not"),
    (53, "nested audiences", lambda f: f.token(aud=[["tenant-api"]]), "'aud' is not"),
    (53, "too many audiences", lambda f: f.token(aud=["tenant-api"] + ["x"] * 16), "'aud' is not"),
    *((54, f"{name} {value!r}", with_value(name, value), TIME)
      for name in ("exp", "iat", "nbf")
      for value in NO_TIMES),
    *((54, f"{name} {value}", with_number(name, value), "not well-formed JSON")
      for name in ("exp", "iat", "nbf")
      for value in ("Infinity", "-Infinity", "NaN")),
    *((54, f"{name} 1e400", with_number(name, "1e400"), TIME) for name in ("exp", "iat", "nbf")),
    (54, "expired", lambda f: f.token(exp=int(f.clock.now) - 31), "has expired"),
    (54, "not valid yet", lambda f: f.token(nbf=int(f.clock.now) + 60), "not valid yet"),
    (54, "issued in the future", lambda f: f.token(iat=int(f.clock.now) + 60), "issued in the future"),
    (55, "crit", lambda f: f.token(header={"crit": ["x"], "x": 1}), "'crit'"),
    (55, "crit that is empty", lambda f: f.token(header={"crit": []}), "'crit'"),
    (55, "b64 false", lambda f: f.token(header={"b64": False}), "'b64'"),
    (55, "zip", lambda f: f.token(header={"zip": "DEF"}), "'zip'"),
    (56, "deep header", lambda f: f.raw("[" * 2000, f.claims()), "header is not well-formed"),
    (56, "deep header object", lambda f: f.raw('{"a":' * 500, f.claims()), "header is not well-formed"),
    (56, "deep payload", lambda f: f.raw('{"alg":"HS256"}', "[" * 2000 + "]" * 700), "payload is not well-formed"),
    (56, "header is an array", lambda f: f.raw("[]", f.claims()), "header is not a JSON object"),
    (56, "payload is a number", lambda f: f.raw('{"alg":"HS256"}', "1"), "payload is not a JSON object"),
    (56, "header is not UTF-8", lambda _: encode(b'{"alg":"\xff"}') + ".e30.AAAA", "header is not well"),
    (56, "header is UTF-16", lambda _: encode("{}".encode("utf-16")) + ".e30.AAAA", "header is not well-formed"),
    (57, "one character too long", lambda f: f.token(pad="x" * MAX_TOKEN), "longer than 4096"),
    (57, "header of a megabyte", lambda f: f.token(header={"x": "y" * 1_000_000}), "longer than 4096"),
    (58, "junk after the signature", lambda f: f.token() + "!!", "not base64url"),
    (58, "padding", lambda f: f.token() + "=", "not base64url"),
    (58, "newline after", lambda f: f.token() + "\n", "not base64url"),
    (58, "space before", lambda f: " " + f.token(), "not base64url"),
    (58, "newline inside", lambda f: swapped(f.token(), 1, lambda s: s[:9] + "\n" + s[9:]), "not base64url"),
    (58, "ordinary base64", lambda f: swapped(f.token(), 2, lambda s: "+" + s[1:]), "not base64url"),
    (58, "full-width letter", lambda f: swapped(f.token(), 0, lambda s: s[:-1] + "\uff21"), "not base64url"),
    (58, "lone surrogate", lambda f: f.token() + "\ud800", "not base64url"),
    (58, "five characters", lambda f: swapped(f.token(), 2, lambda _: "AAAAA"), "not base64url"),
    (58, "non-canonical signature", lambda f: swapped(f.token(), 2, non_canonical), "canonical"),
    (59, "two tenants", lambda f: duplicate(f, "tenant_id", OTHER), "payload is not well-formed"),
    (59, "two subjects", lambda f: duplicate(f, "sub", OTHER), "payload is not well-formed"),
    (
        59,
        "two algorithms",
        lambda f: f.raw('{"alg":"none","alg":"HS256"}', f.claims()),
        "header is not well-formed",
    ),
    (
        59,
        "two keys deeper down",
        lambda f: f.raw('{"alg":"HS256"}', json.dumps(f.claims(x="@")).replace('"@"', '{"a":1,"a":2}')),
        "payload is not well-formed",
    ),
    (60, "five parts", lambda f: f.token() + ".AAAA.AAAA", "three parts"),
    (60, "enc", lambda f: f.token(header={"enc": "A256GCM"}), "'enc'"),
    (60, "empty", lambda _: "", "three parts"),
    (60, "dots", lambda _: "..", "not base64url"),
    (61, "kid is a path", lambda f: f.rs_token(header={"kid": "../../dev/null"}), "does not publish"),
    (61, "kid is SQL", lambda f: f.rs_token(header={"kid": "' OR 1=1--"}), "does not publish"),
    (61, "kid is a number", lambda f: f.rs_token(header={"kid": 1}), "key id is not"),
    (61, "kid is null", lambda f: f.rs_token(header={"kid": None}), "key id is not"),
    (61, "kid is empty", lambda f: f.rs_token(header={"kid": ""}), "key id is not"),
    (61, "kid is long", lambda f: f.rs_token(header={"kid": "x" * 201}), "key id is not"),
    (61, "kid for an issuer without", lambda f: f.token(header={"kid": "x"}), "does not publish"),
    (64, "key of another issuer", lambda f: f.rs_token(iss="es"), "does not publish"),
    (64, "key id of another issuer's key", lambda f: f.es_token(iss="rs"), "does not publish"),
    (64, "another issuer's key under our key id", lambda f: f.rs_token(header={"kid": "es"}, iss="es"), ALGORITHM),
    (64, "refresh token by typ", lambda f: f.token(typ="Refresh"), "'typ'"),
    (64, "ID token by typ", lambda f: f.token(typ="ID"), "'typ'"),
    (64, "typ that is no text", lambda f: f.token(typ=["Bearer"]), "'typ'"),
    (64, "ID token by token_use", lambda f: f.token(token_use="id"), "'token_use'"),
    (64, "refresh token by token_use", lambda f: f.token(token_use="refresh"), "'token_use'"),
    (64, "refresh token by token_type", lambda f: f.token(token_type="refresh"), "'token_type'"),
    (64, "ID token by at_hash", lambda f: f.token(at_hash="x"), "ID token"),
    (64, "logout token by header", lambda f: f.token(header={"typ": "logout+jwt"}), "type is not that"),
    (64, "header typ that is no text", lambda f: f.token(header={"typ": 1}), "type is not that"),
    (0, "roles as text", lambda f: f.token(roles="admin"), "'roles'"),
    (0, "roles as object", lambda f: f.token(roles={"admin": True}), "'roles'"),
    (0, "role that is a number", lambda f: f.token(roles=[1]), "'roles'"),
    (0, "empty role", lambda f: f.token(roles=[""]), "'roles'"),
    (0, "long role", lambda f: f.token(roles=["x" * 65]), "'roles'"),
    (0, "role with NUL", lambda f: f.token(roles=["a\0"]), "'roles'"),
    (0, "role with a lone surrogate", lambda f: f.token(roles=["\ud800"]), "'roles'"),
    (0, "too many roles", lambda f: f.token(roles=["x"] * 33), "'roles'"),
    (0, "jti that is a number", lambda f: f.token(jti=1), "'jti'"),
    (0, "long jti", lambda f: f.token(jti="x" * 256), "'jti'"),
    (0, "scope array", lambda f: f.token(**f.platform_claims(scope=["*"])), "'scope'"),
    (0, "long scope", lambda f: f.token(**f.platform_claims(scope="x" * 1025)), "'scope'"),
    (0, "platform subject that is a number", lambda f: f.token(**f.platform_claims(sub=1)), "'sub'"),
    (0, "empty platform subject", lambda f: f.token(**f.platform_claims(sub="")), "'sub'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("attack", "refusal"), [pytest.param(a, r, id=f"attack {n or 'types'}: {name}") for n, name, a, r in ATTACKS]
)
def test_a_forged_or_malformed_token_is_refused_by_the_guard_against_it(
    attack: Attack, refusal: str, forge: Forge, verifier: TokenVerifier
) -> None:
    for good in (forge.token(), forge.rs_token(), forge.es_token()):
        assert verifier.verify(good).tenant_id == TENANT
    token = attack(forge)
    for _ in range(2):  # a refusal is not remembered as a success
        with pytest.raises(InvalidToken) as refused:
            verifier.verify(token)
        assert refusal in refused.value.message
        assert refused.value.status == 401
    assert len(verifier._cache) == 3


@pytest.mark.parametrize(
    "header",
    [
        {"jku": "http://169.254.169.254/"},
        {"x5u": "http://169.254.169.254/"},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"x5c": ["AAAA"]},
    ],
    ids=lambda header: next(iter(header)),
)
def test_attack_62_key_material_in_the_header_is_ignored(
    header: dict[str, Any], forge: Forge, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an outbound connection")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    assert verifier.verify(forge.rs_token(header=header)).tenant_id == TENANT
    with pytest.raises(InvalidToken, match=SIGNATURE):
        verifier.verify(forge.rs_token(header=header, sign=lambda m: forge.hs(m, b"\0\0\0")))


def test_attack_53_another_service_may_stand_beside_our_audience(forge: Forge, verifier: TokenVerifier) -> None:
    assert verifier.verify(forge.token(aud=["other-api", "tenant-api"])).kind == "tenant"


@pytest.mark.parametrize(
    ("at", "accepted"),
    [(-31, False), (-30, True), (0, True), (129, True), (129.5, True), (130, False)],
)
def test_attack_54_times_are_exact_at_their_boundaries(
    at: float, accepted: bool, forge: Forge, verifier: TokenVerifier
) -> None:
    issued = forge.clock.now
    tokens = [
        forge.token(iat=issued, exp=issued + 100),
        forge.token(iat=issued - 1000, nbf=issued, exp=issued + 100),
    ]
    forge.clock.now = issued + at
    for token in tokens:
        if accepted:
            assert verifier.verify(token).user_id == UUID(forge.claims()["sub"])
        else:
            with pytest.raises(InvalidToken):
                verifier.verify(token)


def test_attack_54_whatever_python_jose_thinks_of_the_time_ours_is_checked(
    forge: Forge, verifier: TokenVerifier
) -> None:
    token = forge.token(exp=int(forge.clock.now) + 3600)
    forge.clock.now += 3630
    with pytest.raises(InvalidToken, match="expired"):
        verifier.verify(token)


def test_attack_57_the_longest_token_is_accepted(forge: Forge, verifier: TokenVerifier) -> None:
    tokens = (forge.token(pad="x" * n) for n in range(2600, 3000))
    longest = max((token for token in tokens if len(token) <= MAX_TOKEN), key=len)
    assert len(longest) > MAX_TOKEN - 4
    assert verifier.verify(longest).tenant_id == TENANT


def test_attack_58_one_token_is_one_entry_of_the_cache(forge: Forge, verifier: TokenVerifier) -> None:
    token = forge.token()
    for spelling in (token, token + "!!", token + "=", swapped(token, 2, non_canonical), token):
        try:
            verifier.verify(spelling)
        except InvalidToken:
            assert spelling != token
    assert len(verifier._cache) == 1


@pytest.mark.parametrize("error", [RecursionError, OverflowError, TypeError, KeyError, MemoryError])
def test_whatever_goes_wrong_inside_the_token_is_invalid(
    error: type[Exception], forge: Forge, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    for function in ("jwt.decode", "read_structure"):
        with monkeypatch.context() as patch:
            patch.setattr(f"control_plane.identity.verifier.{function}", fail)
            with pytest.raises(InvalidToken):
                verifier.verify(forge.token())
    assert verifier.verify(forge.token()).tenant_id == TENANT
