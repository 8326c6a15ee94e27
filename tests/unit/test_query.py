"""The query string of a list: what is understood, and that nothing else is."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from control_plane.api.query import MAX_PARAMETERS, parse_query
from control_plane.api.wanted import wanted
from control_plane.errors import InvalidInput, RangeNotSatisfiable
from control_plane.pools.gate import Condition, Listing, Shape, Sort, list_statement
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


def parse(query: str) -> Listing:
    return parse_query(query.encode(), THINGS)


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
        ("secret=eq.x", ["select", "order", "limit", "offset", *THINGS.filters]),
        ("or=(id.eq.1,name.eq.x)", ["select", "order", "limit", "offset", *THINGS.filters]),
        ("columns=id", ["select", "order", "limit", "offset", *THINGS.filters]),
        ("owner.name=eq.x", ["select", "order", "limit", "offset", *THINGS.filters]),
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
        ("limit=1", [Sort("made_at", True), Sort("id")]),
        ("order=name", [Sort("name"), Sort("id")]),
        ("order=name.desc", [Sort("name", True), Sort("id", True)]),
        ("order=made_at.asc,name.desc", [Sort("made_at"), Sort("name", True), Sort("id", True)]),
        ("order=id.desc,name", [Sort("id", True), Sort("name")]),
        ("order=name.nullsfirst", [Sort("name", False, True), Sort("id")]),
        ("order=name.desc.nullslast", [Sort("name", True, False), Sort("id", True)]),
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
    assert wanted([(b"accept", b"*/*"), (b"range", b"bytes=0-1")], b"").applied_to(plain) == plain
    assert wanted([(b"range", b"0-9"), (b"range-unit", b"bytes")], b"").applied_to(plain) == plain
    assert wanted([(b"range", b"5-7")], b"").applied_to(plain) == plain._replace(offset=5, limit=3)
    assert wanted([(b"range", b"5-")], b"").applied_to(plain) == plain._replace(offset=5)
    assert wanted([(b"range", b"0-999")], b"").applied_to(plain).limit == 10
    for preferred in (b"count=exact", b"return=minimal, count=planned", b"count=estimated"):
        assert wanted([(b"prefer", preferred)], b"").applied_to(plain).shape.counted
    assert not wanted([(b"prefer", b"count=none")], b"").applied_to(plain).shape.counted
    single = wanted([(b"accept", b"application/vnd.pgrst.object+json;q=1")], b"")
    assert single.single
    assert single.applied_to(plain).limit == 2


def test_a_range_that_cannot_be_is_refused() -> None:
    with pytest.raises(RangeNotSatisfiable):
        wanted([(b"range", b"9-5")], b"").applied_to(parse(""))
    with pytest.raises(InvalidInput):
        wanted([(b"range", b"0-1")], b"order=name&limit=5")
    with pytest.raises(InvalidInput):
        wanted([(b"range", b"9999999999-")], b"")
