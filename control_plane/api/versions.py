"""API versions: which one an address names, and what the head of an answer says about its end."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from email.utils import format_datetime

from control_plane.errors import NotFound
from control_plane.templates import Deprecation, Template

Header = tuple[bytes, bytes]

_VERSION = re.compile(r"v([1-9][0-9]{0,3})")


def api_version(template: Template, pattern_version: int, text: str) -> int:
    """The version that a path calls `text`: v1, v2, … or default; raises `NotFound` for another form."""
    if text == "default":
        return template.default_api(pattern_version)
    match = _VERSION.fullmatch(text)
    if match is None:
        raise NotFound("There is no such API version.", hint="Use v1, v2, … or default.")
    return int(match[1])


def deprecation_headers(version: int, deprecation: Deprecation | None, *, listed: bool = False) -> list[Header]:
    """RFC 9745 and RFC 8594: since when something is deprecated, when it may be gone, and where the register is.

    `listed` says that the register has something about what is answered, if only one of its fields.
    """
    if deprecation is None and not listed:
        return []
    register: list[Header] = [(b"link", b'</api/v%d/deprecations>; rel="deprecation"' % version)]
    if deprecation is None:
        return register
    announced, sunset = (datetime.combine(day, time(), UTC) for day in (deprecation.announced, deprecation.sunset))
    return [
        (b"deprecation", b"@%d" % announced.timestamp()),
        (b"sunset", format_datetime(sunset, usegmt=True).encode()),
        *register,
    ]
