"""The compiled way from one pattern version to another: one simple-protocol message per home.

The message is one implicit transaction: an error anywhere undoes all of it and needs no ROLLBACK.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import astuple, dataclass
from functools import cached_property
from uuid import UUID

STEPS = ("concurrent", "backfill")  # beside a version's transaction, in this order

# A text without it neither makes nor replaces a function, be it through the library of `tenancy`.
_ROUTINES = re.compile(
    r"\b(function|procedure|routine)\b|\btenancy\b(?!\.(protect_table|current_tenant_id)\b)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Part:
    """One SQL file; `api` is the API version whose schema leads the path while it runs."""

    label: str
    sql: str
    api: int | None


@dataclass(frozen=True)
class Script:
    """Compiled once per (from, to); `message` fills in the home."""

    template: str
    from_version: int
    to_version: int
    checksum: str
    parts: tuple[Part, ...]
    beside: tuple[str, ...]  # the steps that the home owes afterwards
    api_versions: tuple[int, ...]
    manifest: dict[str, object]

    @cached_property
    def digest(self) -> str:
        """The checksum of all that is run; equal scripts build equal homes."""
        everything = json.dumps([astuple(part) for part in self.parts] + [self.api_versions, self.manifest])
        return hashlib.sha256(everything.encode()).hexdigest()

    @cached_property
    def _manifest(self) -> str:
        """As the inside of a literal."""
        return json.dumps(self.manifest, separators=(",", ":")).replace("'", "''")

    @cached_property
    def replaces_routines(self) -> bool:
        """Whether it may make, replace or drop a function: then cp_owner must own all of them meanwhile."""
        return any(_ROUTINES.search(part.sql) for part in self.parts)

    def message(
        self,
        home_id: UUID,
        schema_name: str,
        lock_timeout: float,
        statement_timeout: float = 0,
        *,
        before_stamp: str = "",
    ) -> str:
        """The text for `Connection.execute` without arguments; timeouts in seconds, 0 = none.

        `before_stamp` is what the stamp needs, as the role that sends the message.
        """
        *sections, stamp = self.sections(home_id, schema_name, lock_timeout, statement_timeout)
        between = (f"SET LOCAL ROLE NONE;\n{before_stamp}",) if before_stamp else ()
        return "\n".join([*(sql for _, sql in sections), *between, stamp[1]])

    def locate(
        self,
        message_position: int,
        home_id: UUID,
        schema_name: str,
        lock_timeout: float,
        statement_timeout: float = 0,
    ) -> str | None:
        """`file:line` of a 1-based character position that PostgreSQL reports for the message of these arguments."""
        start = 0
        for label, sql in self.sections(home_id, schema_name, lock_timeout, statement_timeout):
            if label and start < message_position <= start + len(sql):
                return f"{label}:{sql.count(chr(10), 0, message_position - start - 1) + 1}"
            start += len(sql) + 1
        return None

    def sections(
        self, home_id: UUID, schema_name: str, lock_timeout: float, statement_timeout: float = 0
    ) -> list[tuple[str | None, str]]:
        """The message in pieces: (label of the template's file or None, SQL)."""
        home = f"'{home_id}'"
        apis = ",".join(map(str, self.api_versions))
        way = f"{self.from_version}, {self.to_version}, '{{{apis}}}', {self.replaces_routines}"
        begin = f"""\
SET LOCAL lock_timeout = '{int(lock_timeout * 1000)}ms';
SET LOCAL statement_timeout = '{int(statement_timeout * 1000)}ms';
SELECT tenancy.begin_migration({home}, {way});"""
        if self.from_version:
            begin += f"\nSELECT tenancy.require_steps_done({home});"
        begin += "\nSET LOCAL ROLE cp_owner;"
        stamp = f"""\
SET LOCAL ROLE NONE;
SELECT tenancy.stamp_migration({home}, {self.to_version}, '{self.checksum}', '{self._manifest}', '{self.digest}');"""
        if self.beside:
            stamp += f"\nSELECT tenancy.owe_steps({home}, {self.to_version}, '{{{','.join(self.beside)}}}');"

        sections: list[tuple[str | None, str]] = [(None, begin)]
        path: str | None = None
        for part in self.parts:
            if (wanted := self._set_path(schema_name, part.api)) != path:
                sections.append((None, wanted))
                path = wanted
            # A comment at the end of a file must not swallow what follows it.
            sections.append((part.label, part.sql + "\n;"))
        return [*sections, (None, stamp)]

    @staticmethod
    def _set_path(schema_name: str, api: int | None) -> str:
        schemas = [schema_name] if api is None else [f"{schema_name}__api_v{api}", schema_name]
        return f"SET LOCAL search_path = {', '.join(quote(name) for name in schemas)}, extensions, pg_temp;"


def quote(identifier: str) -> str:
    """Quote an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'
