"""Published keys, from a real server on the loopback interface that does what the test tells it to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from control_plane.errors import InvalidToken
from control_plane.identity import jwks
from control_plane.identity.jwks import JwksFeed
from control_plane.identity.keys import KeyRing, public_keys
from control_plane.identity.verifier import TokenVerifier, TrustedIssuer, UnknownKey, build_verifier
from control_plane.settings import Issuer, Settings
from tests.support.mutation import mutated
from tests.unit.identity.forge import TENANT, Clock, Forge, number

Answer = tuple[int, dict[str, str], bytes]


class KeyServer:
    """Answers every request with what `answer` returns; `paths` are the requests that came."""

    def __init__(self) -> None:
        self.answer: Callable[[], Answer] = lambda: (404, {}, b"")
        self.trickle: Callable[[], bool] = lambda: False  # whether to send one more space before the body
        self.paths: list[str] = []
        self.hosts: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.paths.append(self.path)
                outer.hosts.append(self.headers["Host"])
                status, headers, body = outer.answer()
                try:
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(body)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    while outer.trickle():
                        self.wfile.write(b" ")
                    self.wfile.write(body)
                except OSError:
                    pass  # the client had heard enough

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/keys"

    def publish(self, *keys: dict[str, Any]) -> None:
        body = json.dumps({"keys": keys}).encode()
        self.answer = lambda: (200, {}, body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[KeyServer]:
    server = KeyServer()
    yield server
    server.close()


@pytest.fixture
async def published(server: KeyServer, forge: Forge, clock: Clock) -> AsyncIterator[TokenVerifier]:
    """A verifier of issuer `rs`, whose key `rs` is published and fetched."""
    server.publish(forge.rsa_jwk())
    issuer = Issuer(issuer="rs", jwks_url=server.url, jwks_internal=True)
    verifier = build_verifier(Settings(issuers=[issuer]), clock=clock)
    await verifier.start()
    yield verifier
    await verifier.aclose()


def verifies(verifier: TokenVerifier, token: str) -> bool:
    try:
        return verifier.verify(token).tenant_id == TENANT
    except UnknownKey:
        return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def feed(server: KeyServer, ring: KeyRing, *, internal: bool = True, at: Clock | None = None) -> JwksFeed:
    return JwksFeed(server.url, ["RS256"], ring, internal=internal, monotonic=at or Clock())


async def test_published_keys_verify_tokens(published: TokenVerifier, forge: Forge, server: KeyServer) -> None:
    assert published.verify(forge.rs_token()).tenant_id == TENANT
    assert server.paths == ["/keys"]
    assert server.hosts == [server.url.removeprefix("http://").removesuffix("/keys")]


async def test_a_new_key_is_fetched_when_a_token_names_it(
    published: TokenVerifier, forge: Forge, server: KeyServer
) -> None:
    token = forge.rs_token(header={"kid": "new"})
    server.publish(forge.rsa_jwk(), forge.rsa_jwk(kid="new"))
    with pytest.raises(UnknownKey):
        published.verify(token)
    assert (await published.verify_slow(token)).tenant_id == TENANT
    assert published.verify(token).tenant_id == TENANT


async def test_attack_61_unknown_key_ids_cause_one_fetch_a_minute(
    published: TokenVerifier, forge: Forge, server: KeyServer
) -> None:
    tokens = [forge.rs_token(header={"kid": f"unknown-{number}"}, sign=lambda _: b"x") for number in range(1000)]
    results = await asyncio.gather(*(published.verify_slow(token) for token in tokens), return_exceptions=True)
    assert all(isinstance(result, InvalidToken) for result in results)
    with pytest.raises(InvalidToken):
        await published.verify_slow(tokens[0])
    assert len(server.paths) == 2


async def test_a_fetch_for_every_unknown_key_id_is_noticed(
    published: TokenVerifier, forge: Forge, server: KeyServer
) -> None:
    """Attack 61: `every unknown key id is asked for`."""
    with mutated(JwksFeed.refresh, "now < self._next_demand", "False"), pytest.raises(AssertionError):
        await test_attack_61_unknown_key_ids_cause_one_fetch_a_minute(published, forge, server)


async def test_attack_61_after_a_minute_an_unknown_key_id_is_asked_for_again(forge: Forge, server: KeyServer) -> None:
    monotonic, ring = Clock(), KeyRing()
    server.publish(forge.rsa_jwk())
    keys = feed(server, ring, at=monotonic)
    assert await keys.refresh()
    monotonic.now += 59.9
    assert not await keys.refresh()
    monotonic.now += 0.1
    assert await keys.refresh()
    assert len(server.paths) == 2


async def test_a_caller_that_goes_away_leaves_the_shared_fetch_to_the_others(forge: Forge, server: KeyServer) -> None:
    ring, release = KeyRing(), threading.Event()
    body = json.dumps({"keys": [forge.rsa_jwk()]}).encode()

    def answer() -> Answer:
        release.wait(5)
        return 200, {}, body

    server.answer = answer
    keys = feed(server, ring)
    first, second = asyncio.create_task(keys.refresh()), asyncio.create_task(keys.refresh())
    await asyncio.sleep(0)
    first.cancel()
    release.set()
    assert await second
    assert len(ring) == 1
    assert len(server.paths) == 1


# What answers with the good document in it, in a way that must not count; the rest is no good document.
GOOD_BUT: dict[str, Callable[[bytes], Answer]] = {
    "down": lambda good: (503, {}, good),
    "redirect": lambda good: (302, {"Location": "/elsewhere"}, good),
    "huge": lambda good: (200, {}, good + b" " * jwks.MAX_DOCUMENT),
    "compressed": lambda good: (200, {"Content-Encoding": "gzip"}, good),
    "cut off": lambda good: (200, {"Content-Length": "100000"}, good),
    "deep": lambda good: (200, {}, good[:-1] + b',"x":' + b"[" * 200 + b"]" * 200 + b"}"),
    "no JSON": lambda _: (200, {}, b"<html>"),
    "no key set": lambda _: (200, {}, b"[]"),
    "no keys": lambda _: (200, {}, b'{"keys": []}'),
    "no usable keys": lambda _: (200, {}, b'{"keys": [1, {"kty": "oct", "k": "AAAA"}]}'),
}


@pytest.mark.parametrize("answer", GOOD_BUT.values(), ids=GOOD_BUT)
async def test_attack_63_a_bad_answer_leaves_the_last_good_keys(
    answer: Callable[[bytes], Answer], published: TokenVerifier, forge: Forge, server: KeyServer
) -> None:
    good = json.dumps({"keys": [forge.rsa_jwk(kid="new")]}).encode()
    elsewhere = answer(good)
    server.answer = lambda: (200, {}, good) if server.paths[-1] == "/elsewhere" else elsewhere
    with pytest.raises(InvalidToken):
        await published.verify_slow(forge.rs_token(header={"kid": "new"}))
    assert server.paths == ["/keys", "/keys"]
    assert published.verify(forge.rs_token(jti="not cached")).tenant_id == TENANT


async def test_a_bad_answer_that_is_believed_is_noticed(
    published: TokenVerifier, forge: Forge, server: KeyServer
) -> None:
    """Attack 63: `a set without keys takes the place of the last good one`."""
    with mutated(public_keys, "if not keys:", "if False:"), pytest.raises(InvalidToken):
        await test_attack_63_a_bad_answer_leaves_the_last_good_keys(GOOD_BUT["no keys"], published, forge, server)


async def test_attack_63_a_slow_answer_is_given_up_and_blocks_nobody_meanwhile(
    published: TokenVerifier, forge: Forge, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 1.0)
    release = threading.Event()
    server.trickle = lambda: not release.wait(0.05)  # it never stops sending, so no single read takes long
    server.answer = lambda: (200, {"Content-Length": "60000"}, b"")
    unknown = asyncio.create_task(published.verify_slow(forge.rs_token(header={"kid": "new"})))
    await until(lambda: len(server.paths) == 2)
    assert published.verify(forge.rs_token(jti="meanwhile")).tenant_id == TENANT
    with pytest.raises(InvalidToken):
        await unknown
    assert not release.is_set()
    release.set()


async def test_attack_63_an_issuer_that_is_down_at_the_start_holds_nobody_up_and_is_tried_again(
    forge: Forge, server: KeyServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "RETRY_INTERVAL", 0.01)
    issuer = Issuer(issuer="rs", jwks_url=server.url, jwks_internal=True)
    verifier = build_verifier(Settings(issuers=[issuer]), clock=clock)
    await verifier.start()
    with pytest.raises(UnknownKey):
        verifier.verify(forge.rs_token())
    server.publish(forge.rsa_jwk())
    await until(lambda: verifies(verifier, forge.rs_token()))
    await verifier.aclose()


async def test_attack_65_a_key_that_is_no_longer_published_ends_with_the_periodic_fetch(
    forge: Forge, server: KeyServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "REFRESH_INTERVAL", 0.01)
    server.publish(forge.rsa_jwk())
    issuer = Issuer(issuer="rs", jwks_url=server.url, jwks_internal=True)
    verifier = build_verifier(Settings(issuers=[issuer]), clock=clock)
    await verifier.start()
    token = forge.rs_token()
    assert verifier.verify(token).tenant_id == TENANT
    server.publish(forge.rsa_jwk(kid="new"))
    await until(lambda: not verifies(verifier, token))
    with pytest.raises(UnknownKey):
        verifier.verify(token)
    await verifier.aclose()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"]
)
async def test_attack_62_63_an_address_that_is_not_public_is_never_connected_to(
    host: str, forge: Forge, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.publish(forge.rsa_jwk())
    reached: list[str] = []

    async def record(_: JwksFeed, __: object, address: str) -> bytes:
        reached.append(address)
        return b""

    monkeypatch.setattr(JwksFeed, "_get", record)
    for scheme in ("http", "https"):
        keys = JwksFeed(f"{scheme}://{host}:1/keys", ["RS256"], KeyRing())
        assert not await keys.refresh()
    assert reached == []
    await JwksFeed(f"https://{host}:1/keys", ["RS256"], KeyRing(), internal=True).refresh()
    assert reached


async def test_a_fetch_from_an_address_that_is_not_public_is_noticed(
    forge: Forge, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack 62: `every address is public`."""
    with mutated(JwksFeed._addresses, "if not self._internal and", "if False and"), pytest.raises(AssertionError):
        await test_attack_62_63_an_address_that_is_not_public_is_never_connected_to(
            "127.0.0.1", forge, server, monkeypatch
        )


def rsa_jwk_of(bits: int) -> dict[str, Any]:
    public = rsa.generate_private_key(public_exponent=65537, key_size=bits).public_key().public_numbers()
    return {"kty": "RSA", "n": number(public.n), "e": number(public.e)}


def p384_jwk() -> dict[str, Any]:
    public = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()
    return {"kty": "EC", "crv": "P-384", "x": number(public.x, 48), "y": number(public.y, 48)}


def test_only_public_signature_keys_of_the_issuer_are_used(forge: Forge) -> None:
    good = forge.rsa_jwk(use="sig", alg="RS256", key_ops=["verify"])
    assert set(public_keys({"keys": [good]}, ["RS256"])) == {"rs"}
    bad = [
        forge.rsa_jwk(use="enc"),
        forge.rsa_jwk(key_ops=["encrypt"]),
        forge.rsa_jwk(key_ops="verify"),
        forge.rsa_jwk(alg="RS512"),
        forge.rsa_jwk(alg="HS256"),
        forge.rsa_jwk(d=number(forge.rsa.private_numbers().d)),
        rsa_jwk_of(1024),
        forge.rsa_jwk(kid=1),
        forge.rsa_jwk(kid="x" * 201),
        forge.rsa_jwk(kid=""),
        forge.rsa_jwk(n="AQAB"),
        forge.rsa_jwk(n=1),
        forge.rsa_jwk(e="!"),
        forge.ec_jwk(),
        forge.ec_jwk(crv="P-384"),
        {"kty": "oct", "k": "AAAA", "alg": "HS256", "kid": "rs"},
        "text",
        None,
    ]
    for entry in bad:
        with pytest.raises(ValueError, match="no usable key"):
            public_keys({"keys": [entry]}, ["RS256"])
        assert set(public_keys({"keys": [entry, good]}, ["RS256"])) == {"rs"}
    for entry in (p384_jwk(), forge.ec_jwk(x="AAAA"), forge.ec_jwk(y=None), forge.ec_jwk(crv=["P-256"])):
        with pytest.raises(ValueError, match="no usable key"):
            public_keys({"keys": [entry]}, ["ES256"])


async def test_one_key_id_means_another_key_at_another_issuer(forge: Forge, clock: Clock) -> None:
    other = Forge(clock)
    verifier = TokenVerifier(
        [
            TrustedIssuer(Issuer(issuer=name), KeyRing(public_keys({"keys": [keys.rsa_jwk()]}, ["RS256"]).values()))
            for name, keys in (("rs", forge), ("rs2", other))
        ],
        clock=clock,
    )
    assert verifier.verify(forge.rs_token()).issuer == "rs"
    assert verifier.verify(other.rs_token(iss="rs2")).issuer == "rs2"
    with pytest.raises(InvalidToken, match="signature"):
        verifier.verify(forge.rs_token(iss="rs2"))
