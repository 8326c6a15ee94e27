"""Exports: all rows of a resource as lines of JSON."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.types import Scope

from control_plane.api.endpoints import HEADERS, Answer
from control_plane.api.query import NO_LIMIT, parse_query
from control_plane.api.reads import Read
from control_plane.api.versions import Header, deprecation_headers
from control_plane.api.wanted import Media, Wanted
from control_plane.identity.principal import Principal
from control_plane.pools.listing import Page
from control_plane.pools.placement import Placement


class Export:
    """All rows, in batches: each is a statement of its own, which begins after the last row of the one before."""

    def __init__(self, endpoint: Read, principal: Principal, scope: Scope, asked: Wanted) -> None:
        self._endpoint = endpoint
        self._principal = principal
        self._scope = scope
        self._asked = asked
        self._left = NO_LIMIT  # rows that may still be sent
        self._place: str | None = None

    async def answer(self) -> Answer:
        """With the first batch, so that what is refused is refused with a status."""
        headers, body, more = await self._batch()
        if self._scope["method"] == "HEAD":
            body, more = b"", False
        return Answer(200, headers, body, self._rest(more))

    async def _rest(self, more: bool) -> AsyncGenerator[bytes, None]:
        while more:
            _, body, more = await self._batch()
            yield body

    async def _batch(self) -> tuple[list[Header], bytes, bool]:
        """The headers, up to `max_limit` documents, and whether there may be more."""
        endpoint, query = self._endpoint, self._scope["query_string"]

        async def attempt(placement: Placement) -> tuple[list[Header], Page, bool]:
            resource = endpoint.exposed(placement, self._scope).resource
            ending = deprecation_headers(resource.api_version, resource.deprecation, listed=resource.counted)
            headers = [(b"content-type", Media.LINES.value), *HEADERS[1:], *ending]
            listing = self._asked.lines_of(parse_query(query, resource, whole=True))
            if self._place is None:
                self._left = listing.limit
            else:
                listing = listing.gone_on(self._place)
            listing = listing._replace(limit=min(self._left, resource.max_limit))
            page = await endpoint.read(self._principal, placement, resource, listing, None)
            if self._place is None:
                endpoint.count(placement, resource)
            return headers, page, page.rows == listing.limit

        headers, page, full = await endpoint.attempts.run(self._principal.tenant_id, attempt, repeatable=True)
        assert page.body is not None  # without tags nothing is known
        self._left -= page.rows
        self._place = page.place
        return headers, page.body, full and self._left > 0
