"""Reads of a resource: a list, a page of it, all of it as lines, or one document."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_plus
from uuid import UUID

import asyncpg
from starlette.types import Receive, Scope

from control_plane.api.endpoints import (
    HEADERS,
    JSON,
    Answer,
    Endpoint,
    Header,
    Services,
    api_version_of,
    caller_of,
    deprecation_headers,
    require_no_query,
)
from control_plane.api.query import NO_LIMIT, parse_query, plain_listing
from control_plane.api.wanted import Media, Wanted, wanted
from control_plane.errors import InvalidInput, NotFound, NotSingular, RangeNotSatisfiable
from control_plane.identity.principal import Principal
from control_plane.pools import gate, lists
from control_plane.pools.listing import Known, Listing, Page
from control_plane.pools.placement import Placement
from control_plane.templates import Resource

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)

# Of what has a tag a copy may be kept, and has to be asked about each time. What else an answer depends on is named.
_KEPT: list[Header] = [
    JSON,
    (b"cache-control", b"private, no-cache"),
    (b"vary", b"Authorization, Accept, Prefer, Range, Range-Unit"),
]
# In an address, as far as a header may hold it.
_AS_IT_IS = "!$&'()*+,-./:;=?@_~%"


class Exposed(NamedTuple):
    """A resource as one API version of a home serves it, with the headers of its answers."""

    resource: Resource
    headers: list[Header]
    plain: Listing  # what is read when nothing is asked for


class Read(Endpoint):
    """An endpoint that reads a resource of the template."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._exposed = lru_cache(maxsize=1024)(self._find_resource)

    def exposed(self, placement: Placement, scope: Scope) -> Exposed:
        path = scope["path_params"]
        return self._exposed(placement.template, placement.pattern_version, path["version"], path["resource"])

    def count(self, placement: Placement, resource: Resource) -> None:
        if resource.counted:
            self.calls.count(placement.tenant_id, placement.template, resource.api_version, resource.name)

    async def read(
        self, principal: Principal, placement: Placement, resource: Resource, listing: Listing, known: Known | None
    ) -> Page:
        async with self.pools.connection(placement) as connection:
            return await lists.read_list(
                connection,
                caller_of(principal, placement),
                placement.schema_name,
                resource.api_version,
                resource.name,
                listing,
                known,
            )

    def _find_resource(self, template: str, pattern_version: int, version: str, name: str) -> Exposed:
        found = self.templates[template]
        api_version = api_version_of(found, pattern_version, version)
        resource = found.resource(name, api_version=api_version, pattern_version=pattern_version)
        headers = HEADERS if resource.version is None else _KEPT
        return Exposed(resource, headers + deprecation_headers(resource.deprecation), plain_listing(resource))


class ReadList(Read):
    """GET /api/{version}/{resource}"""

    async def answer(self, principal: Principal, scope: Scope, receive: Receive) -> Answer:
        query = scope["query_string"]
        asked, tags = wanted(scope["headers"], query)
        if asked.media is Media.LINES:
            return await _Export(self, principal, scope, asked).answer()

        async def attempt(placement: Placement) -> tuple[Listing, list[Header], Page]:
            resource, headers, plain = self.exposed(placement, scope)
            listing = asked.applied_to(parse_query(query, resource) if query else plain)
            known = None
            if resource.version is not None:
                known = Known(_question(placement, resource, asked, query), tags)
            try:
                page = await self.read(principal, placement, resource, listing, known)
            except asyncpg.InvalidParameterValueError:
                if listing.place is None:
                    raise
                raise _foreign_cursor() from None
            self.count(placement, resource)
            return listing, headers, page

        listing, headers, page = await self.attempts.run(principal.tenant_id, attempt, repeatable=True)
        return _listed(asked, query, listing, headers, page)


class ReadOne(Read):
    """GET /api/{version}/{resource}/{id}"""

    async def answer(self, principal: Principal, scope: Scope, receive: Receive) -> Answer:
        path = scope["path_params"]
        require_no_query(scope)
        if _UUID.fullmatch(path["id"]) is None:
            raise InvalidInput("The id is not a uuid.")
        id_ = UUID(path["id"])
        _, tags = wanted(scope["headers"], b"")

        async def attempt(placement: Placement) -> tuple[list[Header], gate.Document | None]:
            resource, headers, _ = self.exposed(placement, scope)
            known = None
            if resource.version is not None:
                known = Known(_question(placement, resource, None, b""), tags)
            async with self.pools.connection(placement) as connection:
                document = await gate.read_one(
                    connection,
                    caller_of(principal, placement),
                    placement.schema_name,
                    resource.api_version,
                    resource.name,
                    id_,
                    version=resource.version,
                    known=known,
                )
            self.count(placement, resource)
            return headers, document

        headers, document = await self.attempts.run(principal.tenant_id, attempt, repeatable=True)
        if document is None:
            raise NotFound("There is no such document.")
        if document.tag is not None:
            headers = [*headers, _etag(document.tag)]
        return _unchanged(headers) if document.body is None else Answer(200, headers, document.body)


class _Export:
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
            headers = [(b"content-type", Media.LINES.value), *HEADERS[1:], *deprecation_headers(resource.deprecation)]
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


def _question(placement: Placement, resource: Resource, asked: Wanted | None, query: bytes) -> str:
    """What a tag is good for, besides who asks and what is shown: a home of another version, or elsewhere, may answer
    with other documents of the same versions."""
    form = None if asked is None else (asked.media.value, asked.counted, asked.range)
    return repr((placement.epoch, placement.pattern_version, resource.api_version, resource.name, form, query))


def _listed(asked: Wanted, query: bytes, listing: Listing, headers: list[Header], page: Page) -> Answer:
    """The page as PostgREST answers it: 206 for a part of what is known to be more, Content-Range always."""
    rows, total, offset = page.rows, page.total, listing.offset
    if total is not None and offset > total:
        raise RangeNotSatisfiable(total=total)
    if asked.media is Media.OBJECT and rows != 1:
        raise NotSingular(details="The result contains 0 rows" if rows == 0 else "The result contains several rows")
    if page.tag is not None:
        headers = [*headers, _etag(page.tag)]
    if page.body is None:
        return _unchanged(headers)
    # After a cursor nobody knows how many rows came before.
    shown = b"%d-%d" % (offset, offset + rows - 1) if rows and listing.place is None else b"*"
    headers = [*headers, (b"content-range", b"%b/%b" % (shown, b"*" if total is None else b"%d" % total))]
    if total is not None:
        headers.append((b"preference-applied", b"count=exact"))
    if page.ahead is not None or page.behind is not None:
        headers.append((b"link", _links(query, listing, page)))
    if asked.media is not Media.ARRAY:
        headers[0] = (b"content-type", asked.media.value)
    if asked.media is Media.OBJECT:
        return Answer(200, headers, page.body[1:-1])
    return Answer(200 if total is None or rows >= total else 206, headers, page.body)


def _links(query: bytes, listing: Listing, page: Page) -> bytes:
    """RFC 8288, relative to the address that was asked: the same query string with another cursor."""
    kept = [part for part in query.split(b"&") if part and unquote_plus(part.partition(b"=")[0].decode()) != "cursor"]
    following, previous = page.ahead, page.behind
    if listing.shape.way is not None and not listing.shape.way.forward:
        following, previous = previous, following
    return b", ".join(
        b'<?%b>; rel="%b"' % (quote(b"&".join([*kept, b"cursor=" + cursor.encode()]), _AS_IT_IS).encode(), relation)
        for cursor, relation in ((following, b"next"), (previous, b"prev"))
        if cursor is not None
    )


def _etag(tag: str) -> Header:
    return b"etag", b'"%b"' % tag.encode()


def _unchanged(headers: list[Header]) -> Answer:
    return Answer(304, headers[1:], b"")  # without the type of a body that it does not have


def _foreign_cursor() -> InvalidInput:
    problem = "does not belong to this list, as it is asked for"
    return InvalidInput(
        f"The parameter cursor {problem}.",
        hint="Begin again without it; order and filters must stay as they were on the page that it comes from.",
        errors=[{"parameter": "cursor", "message": problem}],
    )
