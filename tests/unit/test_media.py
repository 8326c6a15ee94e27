"""What the header Accept takes of what a route offers: RFC 9110, section 12.5.1."""

from __future__ import annotations

import pytest

from control_plane.api.media import accepted
from control_plane.errors import NotAcceptable

JSON, OBJECT = b"application/json", b"application/vnd.pgrst.object+json"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def choose(*accept: str) -> bytes:
    return accepted([(b"host", b"x"), *((b"accept", each.encode()) for each in accept)], (JSON, OBJECT))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ([], JSON),
        ([""], JSON),
        (["*/*"], JSON),
        (["application/*"], JSON),
        ([BROWSER], JSON),
        (["application/json"], JSON),
        (["Application/JSON; charset=utf-8"], JSON),
        (["application/vnd.pgrst.object+json"], OBJECT),
        (["application/vnd.pgrst.object+json, application/json"], OBJECT),
        (["application/json, application/vnd.pgrst.object+json"], JSON),
        (["application/json;q=0.5, application/vnd.pgrst.object+json;q=0.6"], OBJECT),
        (["text/csv", "application/json"], JSON),
        (["application/json;q=0, */*"], OBJECT),
        (["*/*;q=0.1, application/vnd.pgrst.object+json;q=0"], JSON),
        (["application/json;q=2"], JSON),
    ],
)
def test_the_preferred_of_what_is_offered(accept: list[str], expected: bytes) -> None:
    assert choose(*accept) == expected


@pytest.mark.parametrize(
    "accept",
    [
        "text/csv",
        "application/xml, text/*",
        "application/json;q=0",
        "*/*;q=0",
        "application/json; nulls=stripped",
        "application/vnd.pgrst.object+json;nulls=stripped",
        "application/vnd.pgrst.plan+text; for=\"application/json\"; options=analyze;",
        "nonsense",
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_with_what_is(accept: str) -> None:
    with pytest.raises(NotAcceptable) as raised:
        choose(accept)
    assert raised.value.hint == "There is application/json, application/vnd.pgrst.object+json."
