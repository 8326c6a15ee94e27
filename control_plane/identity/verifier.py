"""One verifier for every token: structure, issuer, key, claims, python-jose, clock — and a cache before it all."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jose import jwt
from jose.exceptions import ExpiredSignatureError, JWTClaimsError

from control_plane.errors import InvalidToken, RegistryUnavailable
from control_plane.identity.cache import TokenCache
from control_plane.identity.claims import REQUIRED, read_claims
from control_plane.identity.issuers import trusted_issuers
from control_plane.identity.keys import KeyRing, VerificationKey, secret_key
from control_plane.identity.principal import Principal
from control_plane.identity.revocations import Revocations
from control_plane.identity.structure import MAX_TOKEN, UnverifiedToken, read_structure
from control_plane.settings import Issuer, Settings

if TYPE_CHECKING:
    from control_plane.identity.jwks import JwksFeed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer with its current keys and, when they are published, what keeps them current."""

    settings: Issuer
    ring: KeyRing
    feed: JwksFeed | None = None

    @classmethod
    def of(cls, settings: Issuer) -> TrustedIssuer:
        """Raises `ConfigurationError` for a weak secret."""
        if settings.jwks_url is None:
            return cls(settings, KeyRing([secret_key(settings)]))
        ring = KeyRing()
        from control_plane.identity.jwks import JwksFeed  # with its HTTP client, which few processes need

        feed = JwksFeed(settings.jwks_url, settings.algorithms, ring, internal=settings.jwks_internal)
        return cls(settings, ring, feed)


class UnknownKey(InvalidToken):
    """The token is signed with a key that its issuer does not publish."""

    def __init__(self, issuer: TrustedIssuer) -> None:
        super().__init__()
        self.issuer = issuer


class TokenVerifier:
    """Verifies bearer tokens of `issuers`. Every failure is `InvalidToken`, or `RegistryUnavailable` when nobody knows
    which tokens were revoked; nothing else is ever raised.

    `leeway` is the clock skew to forgive in seconds, `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        issuers: Iterable[TrustedIssuer],
        *,
        leeway: float = 30,
        cache_size: int = 20_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuers = {issuer.settings.issuer: issuer for issuer in issuers}
        self._leeway = leeway
        self.revocations = Revocations()
        self._cache = TokenCache(cache_size, self.revocations)
        self._clock = clock
        self._options: dict[str, Any] = {f"require_{name}": True for name in REQUIRED} | {"leeway": leeway}

    async def start(self) -> None:
        """Fetch the published keys and keep them current. An issuer that is down holds nobody up."""
        await asyncio.gather(*(feed.start() for feed in self._feeds()))

    async def aclose(self) -> None:
        await asyncio.gather(*(feed.aclose() for feed in self._feeds()))

    def verify(self, token: str) -> Principal:
        """The bearer of `token`, without waiting for anything. Raises `InvalidToken`, or its `UnknownKey`, and
        `RegistryUnavailable`.

        After `UnknownKey`, `verify_slow` may know better.
        """
        if len(token) > MAX_TOKEN:
            raise InvalidToken(f"The token is longer than {MAX_TOKEN} characters.")
        now = self._clock()
        principal = self._cache.get(token, now)
        if principal is not None:
            return principal
        try:
            return self._verify(token, now)
        except (InvalidToken, RegistryUnavailable):
            raise
        except Exception:  # python-jose raises more than its own errors, and a token is a stranger's input
            logger.exception("a token could not be read")
            raise InvalidToken from None

    async def verify_slow(self, token: str) -> Principal:
        """As `verify`, but an unknown key id makes its issuer's keys be fetched, as often as `JwksFeed` allows."""
        try:
            return self.verify(token)
        except UnknownKey as error:
            feed = error.issuer.feed
            if feed is None or not await feed.refresh():
                raise
        return self.verify(token)

    def _verify(self, token: str, now: float) -> Principal:
        unverified = read_structure(token)
        issuer = self._issuer(unverified)
        key = _key(unverified, issuer)
        claims = read_claims(unverified.claims, issuer.settings)
        self._verify_signature(token, key, issuer.settings.issuer, claims.audience)
        claims.check_time(now, self._leeway)
        self.revocations.check(claims.principal, claims.issued_at)
        self._cache.put(
            token,
            claims.principal,
            claims.issued_at,
            valid_from=claims.valid_from - self._leeway,
            valid_until=claims.valid_until + self._leeway,
            ring=issuer.ring,
        )
        return claims.principal

    def _issuer(self, unverified: UnverifiedToken) -> TrustedIssuer:
        name = unverified.claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise InvalidToken("The token's issuer is not trusted here.")
        return issuer

    def _verify_signature(self, token: str, key: VerificationKey, issuer: str, audience: str) -> None:
        try:
            jwt.decode(
                token, key.key, algorithms=[key.algorithm], options=self._options, audience=audience, issuer=issuer
            )
        except ExpiredSignatureError:
            raise InvalidToken("The token has expired.") from None
        except JWTClaimsError:
            raise InvalidToken("The token is not valid yet.") from None
        except Exception:
            raise InvalidToken("The token's signature is not valid.") from None

    def _feeds(self) -> list[JwksFeed]:
        return [issuer.feed for issuer in self._issuers.values() if issuer.feed is not None]


def build_verifier(settings: Settings, *, clock: Callable[[], float] = time.time) -> TokenVerifier:
    """The verifier of the configured issuers and the development issuer. Raises `ConfigurationError`."""
    return TokenVerifier(
        [TrustedIssuer.of(issuer) for issuer in trusted_issuers(settings).values()],
        leeway=settings.token_leeway,
        cache_size=settings.token_cache_size,
        clock=clock,
    )


def _key(unverified: UnverifiedToken, issuer: TrustedIssuer) -> VerificationKey:
    key = issuer.ring.find(unverified.key_id)
    if key is None:
        raise UnknownKey(issuer)
    if unverified.algorithm != key.algorithm:
        raise InvalidToken("The token's algorithm is not that of its key.")
    return key
