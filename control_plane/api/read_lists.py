"""Lists of a resource: an array with links, or a page object, or one object."""

from __future__ import annotations

from urllib.parse import quote, unquote_plus

import asyncpg
from starlette.types import Receive, Scope

from control_plane.api.endpoints import Answer
from control_plane.api.exports import Export
from control_plane.api.query import parse_query
from control_plane.api.reads import Read, etag_header, question_of, unchanged
from control_plane.api.versions import Header
from control_plane.api.wanted import Media, Wanted, wanted
from control_plane.errors import InvalidInput, NotSingular, RangeNotSatisfiable
from control_plane.identity.principal import Principal
from control_plane.pools.listing import Known, Listing, Page
from control_plane.pools.placement import Placement

# In an address, as far as a header may hold it.
_AS_IT_IS = "!$&'()*+,-./:;=?@_~%"


class ReadList(Read):
    """GET /api/{version}/{resource}"""

    async def answer(self, principal: Principal, scope: Scope, receive: Receive) -> Answer:
        query = scope["query_string"]
        asked, tags = wanted(scope["headers"], query)
        if asked.media is Media.LINES:
            return await Export(self, principal, scope, asked).answer()

        async def attempt(placement: Placement) -> tuple[Listing, list[Header], Page]:
            resource, headers, plain = self.exposed(placement, scope)
            listing = asked.applied_to(parse_query(query, resource) if query else plain)
            known = None
            if resource.version is not None:
                known = Known(question_of(placement, resource, asked, query), tags)
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


def _listed(asked: Wanted, query: bytes, listing: Listing, headers: list[Header], page: Page) -> Answer:
    """The page as PostgREST answers it: 206 for a part of what is known to be more, Content-Range always."""
    rows, total, offset = page.rows, page.total, listing.offset
    if total is not None and offset > total:
        raise RangeNotSatisfiable(total=total)
    if asked.media is Media.OBJECT and rows != 1:
        raise NotSingular(details="The result contains 0 rows" if rows == 0 else "The result contains several rows")
    if page.tag is not None:
        headers = [*headers, etag_header(page.tag)]
    if page.body is None:
        return unchanged(headers)
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


def _foreign_cursor() -> InvalidInput:
    problem = "does not belong to this list, as it is asked for"
    return InvalidInput(
        f"The parameter cursor {problem}.",
        hint="Begin again without it; order and filters must stay as they were on the page that it comes from.",
        errors=[{"parameter": "cursor", "message": problem}],
    )
