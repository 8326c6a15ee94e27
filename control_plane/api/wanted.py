"""What the headers of a read ask for: a form of the answer, a range of rows, their number, and only what is new.

Most of it is PostgREST's; pages, lines and tags are ours. Headers that a server may leave aside are left aside: a
profile names a schema, which here the address does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from control_plane.api.media import chosen
from control_plane.api.query import MAX_OFFSET, one_way
from control_plane.errors import InvalidInput, RangeNotSatisfiable
from control_plane.pools.listing import Form, Listing


class Media(bytes, Enum):
    """The forms of a list's answer."""

    ARRAY = b"application/json"
    OBJECT = b"application/vnd.pgrst.object+json"
    PAGE = b"application/vnd.control-plane.page+json"
    LINES = b"application/x-ndjson"


_OFFERED = tuple(media.value for media in Media)
_LOOKED_AT = frozenset({b"accept", b"prefer", b"range", b"range-unit", b"if-none-match"})
_RANGE = re.compile(rb"([0-9]{1,10})-([0-9]{0,10})")
# Both of the estimates are answered with the number itself, and Preference-Applied says so.
_COUNTS = {b"count=exact", b"count=planned", b"count=estimated"}
_LISTS = frozenset({b"accept", b"prefer", b"if-none-match"})  # several of them are one
# RFC 9110: entity tags in a list. One that was called weak is compared as any other.
_TAG = re.compile(rb'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
MAX_TAGS = 100


class Wanted(NamedTuple):
    media: Media = Media.ARRAY
    counted: bool = False
    range: tuple[int, int | None] | None = None  # the first row and the last one, from 0 on

    def applied_to(self, listing: Listing) -> Listing:
        """The listing with what the headers say.

        Raises `RangeNotSatisfiable` when a range ends before it begins, `InvalidInput` for what cannot go together.
        """
        if self is NOTHING:
            return listing
        shape, limit, offset = listing.shape, listing.limit, listing.offset
        if self.range is not None:
            first, last = self.range
            if last is not None and last < first:
                raise RangeNotSatisfiable("The range ends before it begins.")
            offset, limit = first, limit if last is None else min(limit, last - first + 1)
        if self.range is not None or self.media is Media.OBJECT:
            shape = shape._replace(cursors=False)
        if self.media is Media.OBJECT:
            limit = min(limit, 2)  # enough to know that it is not one
        elif self.media is Media.PAGE:
            shape = shape._replace(form=Form.PAGE)
        if self.counted:
            shape = shape._replace(counted=True)
        if (shape.way is not None or shape.form is Form.PAGE) and not shape.cursors:
            raise _no_cursors(self, listing)
        return listing._replace(shape=shape, limit=limit, offset=offset)

    def lines_of(self, listing: Listing) -> Listing:
        """As lines of all rows; raises `InvalidInput` for what an export cannot do."""
        for what, given in (
            ("a cursor", listing.shape.way is not None),
            ("an offset", listing.offset > 0),
            ("a range", self.range is not None),
        ):
            if given:
                raise InvalidInput(f"An export cannot begin at {what}.", hint="Filter by what it shall begin at.")
        if not listing.shape.uniform:
            raise _mixed("An export", listing)
        shape = listing.shape._replace(form=Form.LINES, cursors=False, version=None)
        return listing._replace(shape=shape)


NOTHING = Wanted()


def wanted(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> tuple[Wanted, tuple[str, ...]]:
    """What the request's headers ask for, and the tags that the caller knows.

    Raises `InvalidInput` when the query string says limit, offset or cursor beside a range, or for too many tags, and
    `NotAcceptable` where Accept leaves no form of an answer.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _LOOKED_AT:
            found[name] = found[name] + b"," + value if name in found and name in _LISTS else value
    if not found:
        return NOTHING, ()
    known = _tags(found.pop(b"if-none-match")) if b"if-none-match" in found else ()
    asked = _wanted(*(found.get(name, b"") for name in (b"accept", b"prefer", b"range", b"range-unit")))
    if asked.range is not None and re.search(rb"(^|&)(limit|offset|cursor)=", query):
        raise InvalidInput(
            "A range of rows is given twice.", hint="Use limit and offset, or a cursor, or the header Range."
        )
    return asked, known


@lru_cache(maxsize=1024)
def _wanted(accepted: bytes, preferred: bytes, ranged: bytes, unit: bytes) -> Wanted:
    asked = Wanted(
        media=Media(chosen(accepted, _OFFERED)),
        counted=not _COUNTS.isdisjoint(each.strip().lower() for each in re.split(b"[,;]", preferred)),
        range=_range(ranged) if unit.strip().lower() in (b"", b"items") else None,
    )
    return NOTHING if asked == NOTHING else asked


def _range(text: bytes) -> tuple[int, int | None] | None:
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return None  # RFC 9110: a range in another unit is as good as none
    first, last = int(match[1]), int(match[2]) if match[2] else None
    if first > MAX_OFFSET:
        raise InvalidInput(
            "The range begins too far away.",
            errors=[{"header": "Range", "message": f"must begin at a row from 0 to {MAX_OFFSET}"}],
        )
    return first, last


def _tags(text: bytes) -> tuple[str, ...]:
    """What does not look like a tag is none that we gave."""
    if text.strip() == b"*":
        return ("*",)
    tags = tuple(dict.fromkeys(tag.decode("latin-1") for tag in _TAG.findall(text)))
    if len(tags) > MAX_TAGS:
        raise InvalidInput(
            "The header If-None-Match has too many tags.",
            errors=[{"header": "If-None-Match", "message": f"takes up to {MAX_TAGS} tags"}],
        )
    return tuple(tag for tag in tags if tag != "*")


def _no_cursors(asked: Wanted, listing: Listing) -> InvalidInput:
    what = "A cursor" if listing.shape.way is not None else "A page"
    if asked.media is Media.OBJECT:
        return InvalidInput("A single object has no pages.", hint="Leave out the cursor.")
    if not listing.shape.uniform:
        return _mixed(what, listing)
    if listing.limit == 0:
        return InvalidInput(f"{what} needs a limit of at least 1.")
    return InvalidInput(
        f"{what} begins at a place and not at a number of rows.", hint="Leave out offset and the header Range."
    )


def _mixed(what: str, listing: Listing) -> InvalidInput:
    return InvalidInput(f"{what} needs an order of one direction.", hint=f"Such as {one_way(listing.shape.order)}.")
