"""Which media type an answer has: what the header Accept takes of what a route offers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from control_plane.errors import NotAcceptable

JSON = b"application/json"

_QUALITY = re.compile(rb"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)
_NULLS = b"nulls=stripped"  # PostgREST's parameter makes a type of its own: the documents are others

_Range = tuple[bytes, float]  # a type, type/* or */*, and how much it is wanted, from 0 (not at all) to 1


def accepted(headers: Iterable[tuple[bytes, bytes]], offered: tuple[bytes, ...]) -> bytes:
    """The one of `offered` that the caller prefers, the first when it does not matter; raises `NotAcceptable`."""
    given = [value for name, value in headers if name == b"accept"]
    return chosen(b",".join(given), offered) if given else offered[0]


@lru_cache(maxsize=256)
def chosen(accept: bytes, offered: tuple[bytes, ...]) -> bytes:
    """The same for the value of the header; an empty one takes anything."""
    ranges = [_range(each) for each in accept.split(b",") if each.strip()]
    if not ranges:
        return offered[0]
    best = max(offered, key=lambda media: _wanted(media, ranges))
    if _wanted(best, ranges)[0] == 0:
        known = ", ".join(media.decode() for media in offered)
        raise NotAcceptable(hint=f"There is {known}.")
    return best


def _range(text: bytes) -> _Range:
    media, *parameters = (part.strip() for part in text.split(b";"))
    qualities = [float(match[1]) for part in parameters if (match := _QUALITY.fullmatch(part))]
    if _NULLS in parameters:
        media += b";" + _NULLS
    return media.lower(), qualities[0] if qualities else 1.0


def _wanted(media: bytes, ranges: list[_Range]) -> tuple[float, int]:
    """How much, and how early it was named; the most specific range that fits decides."""
    for wider in (media, media.partition(b"/")[0] + b"/*", b"*/*"):
        for place, (named, quality) in enumerate(ranges):
            if named == wider:
                return quality, -place
    return 0.0, 0
