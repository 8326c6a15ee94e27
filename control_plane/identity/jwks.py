"""The published keys of an issuer, fetched beside the requests and never on their way.

The address comes from the configuration alone; nothing in a token can cause a request elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence

import httpx

from control_plane.identity.keys import KeyRing, public_keys
from control_plane.identity.structure import parse_json

logger = logging.getLogger(__name__)

FETCH_TIMEOUT = 2.0  # seconds, name resolution included
CONNECT_TIMEOUT = 1.0  # seconds per address
MAX_DOCUMENT = 64 * 1024  # bytes
REFRESH_INTERVAL = 300.0  # seconds between periodic fetches
RETRY_INTERVAL = 10.0  # seconds, after a fetch that failed
DEMAND_INTERVAL = 60.0  # seconds at least between fetches that unknown key ids ask for


class JwksFeed:
    """Keeps `ring` equal to the JWKS document at `url`. A fetch that fails leaves the last good keys in place.

    `internal` allows http and addresses that are not global (loopback, private networks).
    """

    def __init__(
        self,
        url: str,
        algorithms: Sequence[str],
        ring: KeyRing,
        *,
        internal: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = httpx.URL(url)
        self._algorithms = tuple(algorithms)
        self._ring = ring
        self._internal = internal
        self._monotonic = monotonic
        self._tls: ssl.SSLContext = httpx.create_ssl_context()
        self._fetching: asyncio.Task[bool] | None = None
        self._periodic: asyncio.Task[None] | None = None
        self._next_demand = float("-inf")

    async def start(self) -> None:
        """Fetch for the first time (at most `FETCH_TIMEOUT`, and no failure is raised), then periodically."""
        succeeded = await self._fetch_once()
        self._periodic = asyncio.create_task(self._refresh_periodically(succeeded))

    async def aclose(self) -> None:
        for task in (self._periodic, self._fetching):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def refresh(self) -> bool:
        """Fetch because a token names a key that we do not have; returns whether a fetch succeeded.

        All callers share one fetch, and between two fetches `DEMAND_INTERVAL` passes however many callers there are.
        """
        if self._fetching is None:
            now = self._monotonic()
            if now < self._next_demand:
                return False
            self._next_demand = now + DEMAND_INTERVAL
        return await self._fetch_once()

    async def _refresh_periodically(self, succeeded: bool) -> None:
        while True:
            await asyncio.sleep(REFRESH_INTERVAL if succeeded else RETRY_INTERVAL)
            succeeded = await self._fetch_once()

    async def _fetch_once(self) -> bool:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._fetched)
        # A caller that goes away must not take the fetch of the others with it.
        return await asyncio.shield(self._fetching)

    def _fetched(self, _: asyncio.Task[bool]) -> None:
        self._fetching = None

    async def _fetch(self) -> bool:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                document = await self._download()
            if self._ring.replace(public_keys(parse_json(document), self._algorithms)):
                logger.info("the keys at %s have changed; %d are in use", self._url, len(self._ring))
        except Exception as error:  # whatever an issuer does, its last good keys stay and our loop goes on
            logger.warning("the keys at %s could not be fetched (%s: %s)", self._url, type(error).__name__, error)
            return False
        return True

    async def _download(self) -> bytes:
        """The document, from an address that was checked: the connection goes to it, not to a second resolution."""
        addresses = await self._addresses()
        async with httpx.AsyncClient(
            verify=self._tls,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(FETCH_TIMEOUT, connect=CONNECT_TIMEOUT),
        ) as client:
            for address in addresses[:-1]:
                with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                    return await self._get(client, address)
            return await self._get(client, addresses[-1])

    async def _get(self, client: httpx.AsyncClient, address: str) -> bytes:
        body = bytearray()
        async with client.stream(
            "GET",
            self._url.copy_with(host=address),
            headers={"Host": self._url.netloc.decode(), "Accept": "application/json", "Accept-Encoding": "identity"},
            extensions={"sni_hostname": self._url.host},
        ) as response:
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise ValueError("compressed, which was not asked for")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_DOCUMENT:
                    raise ValueError(f"longer than {MAX_DOCUMENT} bytes")
        return bytes(body)

    async def _addresses(self) -> list[str]:
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._url.host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._internal and not all(ipaddress.ip_address(address).is_global for address in addresses):
            raise ValueError("not a public address; 'jwks_internal' allows that")
        return addresses
