"""The query string of a list: what is understood, and that nothing else is."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from control_plane.api.query import MAX_PARAMETERS, NO_LIMIT, parse_query
from control_plane.api.wanted import MAX_TAGS, Media, wanted
from control_plane.errors import InvalidInput, NotAcceptable, RangeNotSatisfiable
from control_plane.pools.listing import Condition, Form, Listing, Shape, Sort, Way
from control_plane.pools.lists import list_statement
from control_plane.templates import Resource

THINGS = Resource(
    name="things",
    api_version=1,
    columns={"id": "uuid", "name": "text", "size": "integer", "weight": "bigint", "price": "numeric",
             "made_at": "timestamptz", "made_on": "date", "open": "boolean", "secret": "text"},
    order=("-made_at", "id"),
    sorts=("made_at", "name"),
    key=("id",),
    filters={"id": ("eq", "in"), "name": ("eq", "neq", "in", "like", "ilike", "is"), "size": ("eq", "gt", "lte", "in"),
             "weight": ("eq",), "price": ("eq",), "made_at": ("gte", "lt"), "made_on": ("eq",), "open": ("eq", "is")},
    version=None,
    default_limit=10,
    max_limit=50,
    deprecation=None,
    counted=False,
)  # fmt: skip
ID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
HOSTILE = [
    "id; select set_config('app.current_tenant_id','x',true)",
    "id desc, (select pg_sleep(9))",
    'id" DESC; DROP TABLE tb_user; --',
    "data->>'secret'",
    "tenant_id",
    "secret",
    "pg_sleep(1)",
    "id::text",
    "(select 1)",
    "\u0000",
    "ıd",
    "ID",
]


def by(column: str, descending: bool = False, nulls_first: bool | None = None) -> Sort:
    return Sort(column, THINGS.columns[column], descending, nulls_first)


def parse(query: str) -> Listing:
    return parse_query(query.encode(), THINGS)


def applied(listing: Listing, **headers: bytes) -> Listing:
    asked, _ = wanted([(name.replace("_", "-").encode(), value) for name, value in headers.items()], b"")
    return asked.applied_to(listing)


def refused(query: str) -> list[dict[str, Any]]:
    with pytest.raises(InvalidInput) as raised:
        parse(query)
    return raised.value.errors


def condition(query: str) -> tuple[Condition, object]:
    listing = parse(query)
    (found,) = listing.shape.conditions
    return found, listing.values[0] if listing.values else None


@pytest.mark.parametrize(
    ("query", "expected", "value"),
    [
        (f"id=eq.{ID}", Condition("id", "eq", "uuid"), ID),
        ("name=eq.", Condition("name", "eq", "text"), ""),
        ('name=eq."a"', Condition("name", "eq", "text"), '"a"'),
        ("name=eq.a.b,c", Condition("name", "eq", "text"), "a.b,c"),
        ("name=eq.a%26b%3Dc", Condition("name", "eq", "text"), "a&b=c"),
        ("name=neq.x", Condition("name", "neq", "text"), "x"),
        ("name=not.eq.not.x", Condition("name", "eq", "text", True), "not.x"),
        ("name=like.a*b%25_", Condition("name", "like", "text"), "a%b%_"),
        (r"name=ilike.*\\", Condition("name", "ilike", "text"), "%\\\\"),
        ("name=not.like.a*", Condition("name", "like", "text", True), "a%"),
        ("name=is.null", Condition("name", "is", "text", False, "null"), None),
        ("name=not.is.NULL", Condition("name", "is", "text", True, "null"), None),
        ("name=is.not_null", Condition("name", "is", "text", False, "not_null"), None),
        ("open=is.true", Condition("open", "is", "boolean", False, "true"), None),
        ("open=eq.false", Condition("open", "eq", "boolean"), "false"),
        ("size=gt.-5", Condition("size", "gt", "integer"), "-5"),
        ("size=lte.2147483647", Condition("size", "lte", "integer"), "2147483647"),
        ("weight=eq.9223372036854775807", Condition("weight", "eq", "bigint"), "9223372036854775807"),
        ("price=eq.12.50", Condition("price", "eq", "numeric"), "12.50"),
        ("made_on=eq.2026-03-01", Condition("made_on", "eq", "date"), "2026-03-01"),
        ("made_at=lt.2026-03-01", Condition("made_at", "lt", "timestamptz"), "2026-03-01"),
        (
            "made_at=gte.2026-03-01T10:20:30.123456%2B02:00",
            Condition("made_at", "gte", "timestamptz"),
            "2026-03-01T10:20:30.123456+02:00",
        ),
        ("name=in.()", Condition("name", "in", "text"), ()),
        ("name=in.(a,b c)", Condition("name", "in", "text"), ("a", "b c")),
        ('name=in.("a,b",c)', Condition("name", "in", "text"), ("a,b", "c")),
        (r'name=in.("a\"b","c\\d",")")', Condition("name", "in", "text"), ('a"b', "c\\d", ")")),
        ('name=in.(a"b,)', Condition("name", "in", "text"), ('a"b', "")),
        ('name=in.("a"b,c)', Condition("name", "in", "text"), ('"a"b', "c")),
        ("size=not.in.(1,2)", Condition("size", "in", "integer", True), ("1", "2")),
    ],
)
def test_a_filter_is_a_condition_and_a_value(query: str, expected: Condition, value: object) -> None:
    assert condition(query) == (expected, value)


@pytest.mark.parametrize(
    "query",
    [
        "id=eq.1",
        f"id=eq.{ID}x",
        f"id=eq.{{{ID}}}",
        "size=eq.",
        "size=eq.1.0",
        "size=eq.2147483648",
        "size=gt.null",
        "size=eq.%D9%A1",
        "size=in.(1,x)",
        "weight=eq.9223372036854775808",
        "price=eq.1e400",
        "price=eq.NaN",
        "open=eq.on",
        "open=is.unknown",
        "name=is.true",
        "name=is.",
        "made_at=gte.now",
        "made_at=gte.infinity",
        "made_at=gte.2026-03-01T10:20:30+02:00",  # + is a space in a query string
        "made_on=eq.today",
        "name=eq.%00",
        "name=like.x\\",
        "name=in.a,b",
        "name=in.(a,b",
        "name=in.(a)b",
        "name=in.(a),(b)",
        "name=in.",
        "name=in.(" + "a," * 1000 + "a)",
    ],
)
def test_a_value_has_the_form_of_its_column(query: str) -> None:
    (error,) = refused(query)
    assert error["parameter"] == query.partition("=")[0]
    assert error["message"]


@pytest.mark.parametrize(
    ("query", "allowed"),
    [
        ("size=lt.1", ["eq", "gt", "lte", "in"]),
        ("size=is.null", ["eq", "gt", "lte", "in"]),
        ("id=like.a*", ["eq", "in"]),
        ("id=match.a", ["eq", "in"]),
        (f"id={ID}", ["eq", "in"]),
        ("id=", ["eq", "in"]),
        ("id=not.not.eq.x", ["eq", "in"]),
        ("id=eq(any).{a}", ["eq", "in"]),
        ("id=EQ.x", ["eq", "in"]),
        ("order=size", ["made_at", "name", "id"]),
        ("order=", ["made_at", "name", "id"]),
        ("order=name,", ["made_at", "name", "id"]),
        ("order=data->name", ["made_at", "name", "id"]),
        ("order=name.up", ["asc", "desc", "nullsfirst", "nullslast"]),
        ("order=name.desc.nullsfirst.x", ["asc", "desc", "nullsfirst", "nullslast"]),
        ("order=name.nullsfirst.desc", ["asc", "desc", "nullsfirst", "nullslast"]),
        ("open=is.x", ["is.null", "is.not_null", "is.true", "is.false"]),
        ("name=is.x", ["is.null", "is.not_null"]),
        ("secret=eq.x", ["select", "order", "limit", "offset", "cursor", *THINGS.filters]),
        ("or=(id.eq.1,name.eq.x)", ["select", "order", "limit", "offset", "cursor", *THINGS.filters]),
        ("columns=id", ["select", "order", "limit", "offset", "cursor", *THINGS.filters]),
        ("owner.name=eq.x", ["select", "order", "limit", "offset", "cursor", *THINGS.filters]),
    ],
)
def test_a_refusal_names_what_is_allowed(query: str, allowed: list[str]) -> None:
    (error,) = refused(query)
    assert error["allowed"] == allowed
    assert error["parameter"] == query.partition("=")[0]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_is_not_declared_reaches_a_statement(text: str) -> None:
    # attack 31
    for query in (f"order={quote(text)}", f"{quote(text)}=eq.1", f"id={quote(text)}.1", f"size=eq.{quote(text)}",
                  f"order=name.{quote(text)}", f"limit={quote(text)}", f"offset={quote(text)}"):  # fmt: skip
        assert refused(query), query
    if not text.isidentifier() or not text.isascii():
        assert refused(f"select={quote(text)}")
    if "\0" not in text:  # as a value it is one: the text of the statement does not know it
        listing = parse(f"name=eq.{quote(text)}")
        assert listing.values == (text,)
        assert list_statement("s", 1, "things", listing.shape) == list_statement(
            "s", 1, "things", parse("name=eq.harmless").shape
        )


def test_everything_that_is_wrong_is_said_at_once() -> None:
    errors = refused("order=size&secret=eq.1&id=eq.1&limit=x")
    assert [error["parameter"] for error in errors] == ["order", "secret", "id", "limit"]


def test_filters_of_one_column_are_all_held_and_their_sequence_makes_no_other_statement() -> None:
    one, other = parse("size=gt.1&name=eq.x&size=lte.9"), parse("size=lte.9&size=gt.1&name=eq.x")
    assert one == other
    assert [(each.column, each.operator) for each in one.shape.conditions] == [
        ("name", "eq"), ("size", "gt"), ("size", "lte")
    ]  # fmt: skip
    assert one.values == ("x", "1", "9")


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("limit=1", [by("made_at", True), by("id")]),
        ("order=name", [by("name"), by("id")]),
        ("order=name.desc", [by("name", True), by("id", True)]),
        ("order=made_at.asc,name.desc", [by("made_at"), by("name", True), by("id", True)]),
        ("order=id.desc,name", [by("id", True), by("name")]),
        ("order=name.nullsfirst", [by("name", False, True), by("id")]),
        ("order=name.desc.nullslast", [by("name", True, False), by("id", True)]),
    ],
)
def test_an_order_is_total(query: str, order: list[Sort]) -> None:
    assert parse(query).shape.order == tuple(order)


@pytest.mark.parametrize("query", ["order=name,name.desc", "limit=1&limit=1", "select=*&select=*", "order=id&order=id"])
def test_what_can_be_said_once_is_said_once(query: str) -> None:
    assert "more than once" in refused(query)[0]["message"]


@pytest.mark.parametrize(
    ("query", "limit", "offset"),
    [("", 10, 0), ("limit=0", 0, 0), ("limit=50&offset=7", 50, 7), ("limit=51", 50, 0), ("limit=9999999999", 50, 0)],
)
def test_limits_are_those_of_the_template(query: str, limit: int, offset: int) -> None:
    assert (parse(query).limit, parse(query).offset) == (limit, offset)


@pytest.mark.parametrize("query", ["limit=-1", "limit=", "limit=1.0", "limit=٣", "offset=-1", "offset=2147483648"])
def test_limits_are_whole_numbers(query: str) -> None:
    assert "whole number" in refused(query)[0]["message"]


@pytest.mark.parametrize(
    ("query", "keys"),
    [("select=*", ()), ("select=id,*", ()), ("select=id,name", ("id", "name")), ("select= id,id", ("id",)),
     ("select=__typename", ("__typename",))],
)  # fmt: skip
def test_fields_are_picked_by_parameter(query: str, keys: tuple[str, ...]) -> None:
    listing = parse(query)
    assert listing.keys == keys
    assert listing.shape == Shape(listing.shape.order, picked=bool(keys))


@pytest.mark.parametrize(
    "select", ["", "id,", "a:id", "id::text", "owner(*)", "data->a", "id.sum()", "a b", "k," * 101]
)
def test_fields_are_names(select: str) -> None:
    assert refused(f"select={select}")[0]["parameter"] == "select"


@pytest.mark.parametrize("query", ["name=eq.%ff", "%ff=eq.x", "&".join(["name=eq.x"] * (MAX_PARAMETERS + 1))])
def test_a_query_string_is_short_and_utf_8(query: str) -> None:
    with pytest.raises(InvalidInput):
        parse(query)
    with pytest.raises(InvalidInput):
        parse_query(b"name=eq.\xff", THINGS)


def test_headers_say_range_number_and_one_object() -> None:
    plain = parse("")
    assert applied(plain, accept=b"*/*", range=b"bytes=0-1") == plain
    assert applied(plain, range=b"0-9", range_unit=b"bytes") == plain
    assert applied(plain, range=b"5-7") == plain._replace(offset=5, limit=3)
    assert applied(plain, range=b"5-") == plain._replace(offset=5)
    assert applied(plain, range=b"0-999").limit == 10
    for preferred in (b"count=exact", b"return=minimal, count=planned", b"count=estimated"):
        assert applied(plain, prefer=preferred).shape.counted
    assert not applied(plain, prefer=b"count=none").shape.counted
    assert applied(plain, accept=b"application/vnd.pgrst.object+json;q=1").limit == 2


def test_the_form_is_the_one_that_is_preferred() -> None:
    for accepted, media in (
        (b"", Media.ARRAY),
        (b"application/json", Media.ARRAY),
        (b"text/html, */*;q=0.1", Media.ARRAY),
        (b"application/vnd.pgrst.object+json", Media.OBJECT),
        (b"application/json, Application/X-NDJSON ;q=0.5", Media.ARRAY),
        (b"application/json;q=0.5, Application/X-NDJSON", Media.LINES),
        (b"application/vnd.control-plane.page+json, application/x-ndjson", Media.PAGE),
    ):
        asked, _ = wanted([(b"accept", accepted)], b"")
        assert asked.media is media, accepted
    two, _ = wanted([(b"accept", b"text/html"), (b"accept", b"application/x-ndjson")], b"")
    assert two.media is Media.LINES
    for refused in (b"text/csv", b"application/x-ndjson2", b"application/vnd.pgrst.array+json;nulls=stripped"):
        with pytest.raises(NotAcceptable):
            wanted([(b"accept", refused)], b"")


def test_known_tags_are_read_as_http_writes_them() -> None:
    for text, tags in (
        (b'"a"', ("a",)),
        (b'W/"a" , "b,c", "a"', ("a", "b,c")),
        (b" * ", ("*",)),
        (b'"*"', ()),  # a tag, and none of ours
        (b'a, w/"b"x', ("b",)),
        (b"", ()),
        (b'"\xff"', ("\xff",)),
    ):
        assert wanted([(b"if-none-match", text)], b"")[1] == tags, text
    assert wanted([(b"if-none-match", b'"a"'), (b"if-none-match", b'"b"')], b"")[1] == ("a", "b")
    with pytest.raises(InvalidInput):
        wanted([(b"if-none-match", b",".join(b'"%d"' % number for number in range(MAX_TAGS + 1)))], b"")


def test_a_list_has_cursors_where_it_can_be_gone_on_from() -> None:
    for query, cursors in (
        ("", False),  # by made_at backwards and then by id forwards
        ("order=made_at", True),
        ("order=made_at.desc,id.desc", True),
        ("order=made_at.desc.nullsfirst", True),  # where an index has them
        ("order=made_at.desc.nullslast", False),
        ("order=name.nullsfirst", False),
        ("order=name.asc,made_at.desc", False),
        ("order=name&limit=1", True),
        ("order=name&limit=0", False),
        ("order=name&offset=0", False),
    ):
        assert parse(query).shape.cursors == cursors, query
    by_name = parse("order=name")
    for headers in ({"range": b"0-1"}, {"accept": b"application/vnd.pgrst.object+json"}):
        assert not applied(by_name, **headers).shape.cursors


def test_a_cursor_is_a_way_and_a_place() -> None:
    for letter, way in (("n", Way(True)), ("p", Way(False)), ("N", Way(True, True)), ("P", Way(False, True))):
        listing = parse(f"order=name&cursor={letter}abc_-9")
        assert (listing.shape.way, listing.place, listing.shape.cursors) == (way, "abc_-9", True)
        assert way.letter == letter


@pytest.mark.parametrize("cursor", ["", "n", "x123", "123", "n'", "n%00", "nab c", "nä", "n" * 16386])
def test_what_does_not_look_like_a_cursor_is_none(cursor: str) -> None:
    (error,) = refused(f"order=name&cursor={quote(cursor)}")
    assert (error["parameter"], error["message"]) == ("cursor", "is no cursor of this list")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("cursor=nabc", "needs an order of one direction, such as order=made_at.desc,id.desc"),
        ("order=name,made_at.desc&cursor=nabc", "needs an order of one direction, such as order=name,made_at,id"),
        ("order=name&offset=0&cursor=nabc", "goes on from a place; an offset beside it has no meaning"),
        ("order=name&limit=0&cursor=nabc", "needs a limit of at least 1"),
        ("order=name&cursor=nabc&cursor=nabc", "is given more than once"),
    ],
)
def test_a_cursor_stands_with_what_has_pages(query: str, message: str) -> None:
    assert refused(query)[-1] == {"parameter": "cursor", "message": message}


def test_a_page_is_refused_where_there_are_no_cursors() -> None:
    page = b"application/vnd.control-plane.page+json"
    assert applied(parse("order=name"), accept=page).shape.form is Form.PAGE
    for query, headers, hint in (
        ("", {}, "Such as order=made_at.desc,id.desc."),
        ("order=name&offset=3", {}, "Leave out offset and the header Range."),
        ("order=name&limit=0", {}, None),
        ("order=name", {"range": b"0-1"}, "Leave out offset and the header Range."),
    ):
        with pytest.raises(InvalidInput) as raised:
            applied(parse(query), accept=page, **headers)
        assert raised.value.hint == hint
    with pytest.raises(InvalidInput):
        applied(parse("order=name&cursor=nabc"), accept=b"application/vnd.pgrst.object+json")


def test_an_export_has_its_own_limit_and_begins_at_the_first_row() -> None:
    def lines(query: str, **headers: bytes) -> Listing:
        asked, _ = wanted([(name.encode(), value) for name, value in headers.items()], query.encode())
        return asked.lines_of(parse_query(query.encode(), THINGS, whole=True))

    assert lines("order=name").limit == NO_LIMIT
    assert lines("order=name&limit=100000").limit == 100_000
    assert lines("order=name").shape.form is Form.LINES
    for query, headers in (
        ("", {}),
        ("order=name&offset=1", {}),
        ("order=name&cursor=nabc", {}),
        ("order=name", {"range": b"0-1"}),
    ):
        with pytest.raises(InvalidInput):
            lines(query, **headers)


def test_a_range_that_cannot_be_is_refused() -> None:
    with pytest.raises(RangeNotSatisfiable):
        applied(parse(""), range=b"9-5")
    with pytest.raises(InvalidInput):
        wanted([(b"range", b"0-1")], b"order=name&limit=5")
    with pytest.raises(InvalidInput):
        wanted([(b"range", b"0-1")], b"cursor=nabc")
    assert wanted([(b"range", b"bytes=0-1")], b"limit=5")[0].range is None
    with pytest.raises(InvalidInput):
        wanted([(b"range", b"9999999999-")], b"")
