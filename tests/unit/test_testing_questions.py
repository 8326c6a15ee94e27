"""Which requests are made of a route, and what of an answer counts as a leak."""

from __future__ import annotations

import gzip
from uuid import UUID, uuid4

import httpx
import pytest

from control_plane.testing.findings import Finding, leaked, report, shown
from control_plane.testing.questions import Missing, Question, filled, questions, unknown
from control_plane.testing.routes import Route

ROUTE = Route("GET", "/a/{id}", "/a/{id}", ("id",), ("q", "page"), (), True)
SEARCH = Route("GET", "/search", "/search", (), ("q", "page"), ("q",), True)


def test_each_value_of_a_name_and_each_optional_parameter_is_asked_for() -> None:
    rows = filled("marker", {"id": ["one/two", 3], "q": "x y"})
    assert [each.url for each in questions(ROUTE, rows.values)] == [
        "/a/one%2Ftwo",
        "/a/3",
        "/a/one%2Ftwo?q=x+y",
        "/a/3?q=x+y",
    ]
    assert [each.url for each in questions(SEARCH, rows.values)] == ["/search?q=x+y"]


def test_a_parameter_without_a_value_is_missing() -> None:
    with pytest.raises(Missing) as raised:
        questions(SEARCH, {"id": ["1"], "q": []})
    assert raised.value.names == ["q"]


def test_values_that_both_tenants_have_are_no_secrets() -> None:
    mine, theirs = str(uuid4()), str(uuid4())
    rows = filled("canary1", {"id": [mine, "7"], "status": "a long word of both"})
    others = filled("canary2", {"id": [theirs, "7"], "status": "a long word of both"})
    assert rows.foreign(others) == {mine: "id"}
    assert rows.secrets(others) == {mine: "its id", "canary1": "the marker"}
    counted = filled("canary3", {"id": 8})
    assert counted.foreign(others) == {"8": "id"}
    assert counted.secrets(others) == {"canary3": "the marker"}  # 8 turns up by chance


def test_an_unknown_value_is_of_the_same_kind() -> None:
    own = Question(ROUTE, {"id": str(uuid4()), "q": "word"})
    made_up = unknown(own, own.values.values())
    assert UUID(made_up.values["id"]) != UUID(own.values["id"])
    assert made_up.values["q"] != "word"
    assert unknown(own, [own.values["id"]]).values["q"] == "word"
    number = unknown(Question(ROUTE, {"id": "12"}), ["12"]).values["id"]
    assert 12 < int(number) <= 2**31 - 1


def test_a_leak_is_found_in_any_case_and_place_but_not_where_it_was_asked_for() -> None:
    answer = httpx.Response(404, text='{"seen": "CANARY1"}', headers={"X-Last": "canary2"})
    secrets = {"canary1": "the marker", "canary2": "its id", "canary3": "its other id"}
    assert leaked(answer, secrets) == ["the marker (canary1) in the body", "its id (canary2) in the headers"]
    assert leaked(answer, secrets, "/search?q=Canary1") == ["its id (canary2) in the headers"]


def test_a_compressed_body_is_read() -> None:
    body = gzip.compress(b"canary1")
    answer = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(body))
    answer.read()
    assert leaked(answer, {"canary1": "the marker"}) == ["the marker (canary1) in the body"]


def test_a_report_says_each_finding_once_and_cuts_long_answers() -> None:
    long = shown(httpx.Response(200, text="x" * 1000))
    assert long.endswith("… (1000 characters)")
    finding = Finding("Something.", "Because.", "as a: GET /", long)
    assert report([finding, finding]).count("Something.") == 1
    assert report([finding]).splitlines()[1:] == [
        "    asked     as a: GET /",
        f"    answered  {long}",
        "    why       Because.",
    ]
