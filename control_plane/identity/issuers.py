"""Whom we trust: the configured issuers and the development issuer, checked before any token is."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from control_plane.errors import ConfigurationError
from control_plane.settings import Issuer, Settings

DEVELOPMENT_ISSUER = "control-plane-dev"


def development_issuer(settings: Settings) -> Issuer:
    """The HS256 issuer of `cp token`, whose key is CP_SIGNING_KEY. Raises `ConfigurationError` when there is none."""
    if settings.signing_key is None:
        raise ConfigurationError(
            "There is no signing key to issue tokens with.",
            hint="Set CP_SIGNING_KEY (32 bytes or more), or get tokens from a configured issuer.",
        )
    return Issuer(issuer=DEVELOPMENT_ISSUER, algorithms=["HS256"], secret=settings.signing_key)


def trusted_issuers(settings: Settings) -> dict[str, Issuer]:
    """Every trusted issuer by its exact name. Raises `ConfigurationError` for one that cannot be trusted as it is."""
    issuers = list(settings.issuers)
    if settings.signing_key is not None:
        issuers.append(development_issuer(settings))
    for issuer in issuers:
        _check(issuer)
    _check_distinct(issuer.issuer for issuer in issuers)
    return {issuer.issuer: issuer for issuer in issuers}


def _check(issuer: Issuer) -> None:
    def refuse(problem: str) -> ConfigurationError:
        return ConfigurationError(f"The issuer '{issuer.issuer}' {problem}", hint="Look at CP_ISSUERS.")

    if issuer.tenant_audience == issuer.platform_audience:
        raise refuse("has one audience for tenant and platform tokens: nothing would tell them apart.")
    if not issuer.algorithms:
        raise refuse("allows no algorithm.")
    if issuer.secret is not None:
        if issuer.jwks_url is not None or issuer.algorithms != ["HS256"]:
            raise refuse("has a secret: then its only algorithm is HS256 and it has no jwks_url.")
        return
    if issuer.jwks_url is None or "HS256" in issuer.algorithms:
        raise refuse("needs a secret (HS256) or a jwks_url (RS256, ES256).")
    address = urlsplit(issuer.jwks_url)
    if not address.hostname or address.scheme not in ("https", "http"):
        raise refuse("has a jwks_url that is not an https address.")
    if address.scheme == "http" and not issuer.jwks_internal:
        raise refuse("has a jwks_url without https; 'jwks_internal' allows that for a network you trust.")


def _check_distinct(names: Iterable[str]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ConfigurationError(f"The issuer '{name}' is configured twice.", hint="Look at CP_ISSUERS.")
        seen.add(name)
