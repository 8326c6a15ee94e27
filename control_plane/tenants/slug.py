"""The grammar of slugs: what people type and read, and what never changes."""

from __future__ import annotations

import re

from control_plane.errors import InvalidSlug

SHORTEST, LONGEST = 2, 40

_GRAMMAR = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{32}", re.ASCII)  # without hyphens, which uuid parsers ignore wherever they are

# Words that would be mistaken for something of ours in an address, a log or a psql prompt; `tenancy.reserved_slugs()`
# in the tenants' databases holds the same ones.
RESERVED = frozenset(
    """
    admin administrator all api app auth billing cluster clusters console control-plane default docs health healthz
    home homes information-schema internal login logout metrics migrations new none null oauth openapi operations
    pg-catalog platform postgres public readyz registry root schema security self shared static status support system
    template templates tenancy tenant tenants test undefined www
    """.split()  # noqa: SIM905 - one word a line would hide the list
)


def validate_slug(slug: str) -> str:
    """Return `slug` as it is, or raise `InvalidSlug` that says what is wrong with it."""
    if not SHORTEST <= len(slug) <= LONGEST:
        raise InvalidSlug(f"The slug has {len(slug)} characters; it needs {SHORTEST} to {LONGEST}.")
    if not _GRAMMAR.fullmatch(slug):
        raise InvalidSlug(f"The slug {slug!r} {_flaw(slug)}.")
    if slug in RESERVED:
        raise InvalidSlug(f"The slug {slug!r} is reserved.")
    if _UUID.fullmatch(slug.replace("-", "")):
        raise InvalidSlug(f"The slug {slug!r} could be mistaken for a tenant's id.")
    return slug


def _flaw(slug: str) -> str:
    strange = sorted(set(re.sub(r"[a-z0-9-]", "", slug)))
    if strange:
        return "contains " + ", ".join(repr(character) for character in strange)
    if not "a" <= slug[0] <= "z":
        return "does not start with a letter"
    return "ends with a hyphen" if slug.endswith("-") else "has two hyphens in a row"
