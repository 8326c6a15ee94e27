"""The grammar of slugs."""

from __future__ import annotations

import pytest

from control_plane.errors import InvalidSlug
from control_plane.tenants.slug import validate_slug
from tests.support.mutation import mutated


@pytest.mark.parametrize("slug", ["ab", "acme", "acme-2", "a1-b2-c3", "a" * 40, "pgbouncer"])
def test_a_slug_of_the_grammar_is_returned_as_it_is(slug: str) -> None:
    assert validate_slug(slug) == slug


@pytest.mark.parametrize(
    ("slug", "complaint"),
    [
        ("", "0 characters"),
        ("a", "1 characters"),
        ("a" * 41, "41 characters"),
        ("Acme", "contains 'A'"),
        ("a_b", "contains '_'"),
        ("é-é", "contains 'é'"),
        ("acme\n", r"contains '\n'"),
        ('a"; DROP SCHEMA public; --', "contains"),
        ("../x y", "contains"),
        ("1acme", "does not start with a letter"),
        ("-acme", "does not start with a letter"),
        ("acme-", "ends with a hyphen"),
        ("ac--me", "two hyphens"),
    ],
)
def test_a_slug_outside_the_grammar_is_refused_with_its_flaw(slug: str, complaint: str) -> None:
    with pytest.raises(InvalidSlug) as refused:
        validate_slug(slug)
    assert complaint in refused.value.message


@pytest.mark.parametrize("slug", ["public", "admin", "api", "information-schema", "tenancy"])
def test_a_reserved_word_is_refused(slug: str) -> None:
    with pytest.raises(InvalidSlug, match="reserved"):
        validate_slug(slug)


@pytest.mark.parametrize(
    "slug",
    [
        "a" * 32,
        "abcdefab-cdef-4bcd-8fab-cdefabcdefab",
        "abcdefabcdef-abcdefabcdefabcdefab",
    ],
)
def test_what_a_uuid_parser_would_accept_is_no_slug(slug: str) -> None:
    with pytest.raises(InvalidSlug, match="tenant's id"):
        validate_slug(slug)


def test_a_grammar_that_is_only_looked_at_from_the_front_is_noticed() -> None:
    """Attack 32: `a slug may end anywhere`."""
    with (
        mutated(validate_slug, "_GRAMMAR.fullmatch(slug)", "_GRAMMAR.match(slug)"),
        pytest.raises(pytest.fail.Exception),
    ):
        test_a_slug_outside_the_grammar_is_refused_with_its_flaw('a"; DROP SCHEMA public; --', "contains")
