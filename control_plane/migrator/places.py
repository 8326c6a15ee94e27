"""Which line of which file of a template the server refuses, noted with the error on its way up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

_NOTE = re.compile(r"(?P<label>.+\.sql):(?P<line>\d+)")


@contextmanager
def noted(label: str | None, sql: str, first: int = 1) -> Iterator[None]:
    """Note at what PostgreSQL refuses in which line of which file it did; `sql` starts at the line `first`."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if label is not None:
            position = int(getattr(error, "position", None) or 1)
            error.add_note(f"{label}:{sql.count(chr(10), 0, position) + first}")
        raise


def place(error: BaseException) -> tuple[str, int] | None:
    """The file and line that the error was noted with."""
    for note in getattr(error, "__notes__", ()):
        if match := _NOTE.fullmatch(note):
            return match["label"], int(match["line"])
    return None


def described(error: asyncpg.PostgresError) -> str:
    """What the server says, and where, but not what it quotes of rows: in details, and in messages about values."""
    text = type(error).__name__ if (error.sqlstate or "").startswith("22") else str(error.args[0])
    found = place(error)
    return f"{text} ({found[0]}:{found[1]})" if found else text
