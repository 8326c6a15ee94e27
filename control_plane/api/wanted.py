"""What the headers of a read ask for, in PostgREST's words: a range of rows, their number, one object and no list.

Headers that a server may leave aside are left aside: a profile names a schema, which here the address does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from control_plane.api.query import MAX_OFFSET
from control_plane.errors import InvalidInput, RangeNotSatisfiable
from control_plane.pools.gate import Listing

OBJECT = b"application/vnd.pgrst.object+json"

_RANGE = re.compile(rb"([0-9]{1,10})-([0-9]{0,10})")
# Both of the estimates are answered with the number itself, and Preference-Applied says so.
_COUNTS = {b"count=exact", b"count=planned", b"count=estimated"}


class Wanted(NamedTuple):
    single: bool = False
    counted: bool = False
    range: tuple[int, int | None] | None = None  # the first row and the last one, from 0 on

    def applied_to(self, listing: Listing) -> Listing:
        """The listing with what the headers say; raises `RangeNotSatisfiable` when a range ends before it begins."""
        shape, limit, offset = listing.shape, listing.limit, listing.offset
        if self.range is not None:
            first, last = self.range
            if last is not None and last < first:
                raise RangeNotSatisfiable("The range ends before it begins.")
            offset, limit = first, limit if last is None else min(limit, last - first + 1)
        if self.single:
            limit = min(limit, 2)  # enough to know that it is not one
        if self.counted:
            shape = shape._replace(counted=True)
        return listing._replace(shape=shape, limit=limit, offset=offset)


NOTHING = Wanted()


def wanted(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> Wanted:
    """Of the request's headers; raises `InvalidInput` when the query string says limit or offset beside a range."""
    accepted, preferred, ranged, unit = b"", b"", b"", b"items"
    for name, value in headers:
        if name == b"accept":
            accepted = value
        elif name == b"prefer":
            preferred += b"," + value
        elif name == b"range":
            ranged = value
        elif name == b"range-unit":
            unit = value
    if not (accepted or preferred or ranged):
        return NOTHING
    return Wanted(
        single=OBJECT in {each.partition(b";")[0].strip().lower() for each in accepted.split(b",")},
        counted=not _COUNTS.isdisjoint(each.strip().lower() for each in re.split(b"[,;]", preferred)),
        range=_range(ranged, query) if ranged and unit.strip().lower() == b"items" else None,
    )


def _range(text: bytes, query: bytes) -> tuple[int, int | None] | None:
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return None  # RFC 9110: a range in another unit is as good as none
    if re.search(rb"(^|&)(limit|offset)=", query):
        raise InvalidInput("A range of rows is given twice.", hint="Use limit and offset, or the header Range.")
    first, last = int(match[1]), int(match[2]) if match[2] else None
    if first > MAX_OFFSET:
        raise InvalidInput(
            "The range begins too far away.",
            errors=[{"header": "Range", "message": f"must begin at a row from 0 to {MAX_OFFSET}"}],
        )
    return first, last
