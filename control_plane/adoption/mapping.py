"""How a legacy table becomes a view and a projection: which columns, under which names, with which key."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from pydantic import BaseModel

from control_plane.adoption.catalog import Column, Table
from control_plane.adoption.keys import KeyCandidate

# What views and projections call their own columns.
OWN_NAMES = ("data", "version", "synced_at")
_LONGEST = 63  # bytes of a name


class Lookup(BaseModel, frozen=True):
    """A column beside `data`: `name` in the view and the projection, `column` of the legacy table."""

    name: str
    column: str
    type: str  # of the projection's column
    collation: str | None = None
    as_text: bool = False  # the legacy type is the legacy schema's own


class Field(BaseModel, frozen=True):
    """A key of the document; it bears the name of its column. `rendering`: plain, utc or hex."""

    column: str
    type: str
    rendering: str = "plain"


class Mapping(BaseModel, frozen=True):
    """All that the DDL of one table follows from; equal tables with equal choices have equal mappings."""

    source_schema: str
    source_table: str
    view: str
    projection: str
    type_name: str  # __typename of the documents
    key: list[Lookup]
    enforced: bool  # a constraint keeps the key unique; otherwise only the data did
    lookups: list[Lookup]
    fields: list[Field]
    withheld: list[str]  # secret columns that nobody confirmed

    @property
    def label(self) -> str:
        return f"{self.source_schema}.{self.source_table}"

    @property
    def columns(self) -> list[str]:
        """The legacy columns that are read."""
        looked_up = [each.column for each in (*self.key, *self.lookups)]
        return list(dict.fromkeys([*looked_up, *(each.column for each in self.fields)]))


def build_mapping(table: Table, key: KeyCandidate, secret: Collection[str], confirmed: Collection[str]) -> Mapping:
    """`secret`: columns that look like secrets; `confirmed`: those of them that may be shown."""
    withheld = [column.name for column in table.columns if column.name in secret and column.name not in confirmed]
    shown = [column for column in table.columns if column.name not in withheld]
    taken: set[str] = set()
    keys = [_lookup(column, taken) for name in key.columns if (column := table.column(name))]
    wanted = {name for foreign in table.foreign_keys for name in foreign.columns}
    # Whatever leads an index is something that the application looks rows up by.
    wanted |= {index.columns[0] for index in table.indexes if index.columns[0] is not None and not index.partial}
    others = [column for column in shown if column.name in wanted - set(key.columns) and column.sortable]
    return Mapping(
        source_schema=table.schema,
        source_table=table.name,
        view=short_name("v_", table.name),
        projection=short_name("tv_", table.name),
        type_name="".join(part.capitalize() for part in table.name.split("_")),
        key=keys,
        enforced=key.enforced,
        lookups=[_lookup(column, taken) for column in others],
        fields=[Field(column=column.name, type=column.type, rendering=_rendering(column)) for column in shown],
        withheld=withheld,
    )


def short_name(prefix: str, name: str) -> str:
    """`prefix` + `name` within 63 bytes; what does not fit ends with a piece of its hash, so that names stay apart."""
    whole = prefix + name
    if len(whole.encode()) <= _LONGEST:
        return whole
    mark = "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return whole.encode()[: _LONGEST - len(mark)].decode(errors="ignore") + mark


def _lookup(column: Column, taken: set[str]) -> Lookup:
    name = column.name
    while name in taken or name in OWN_NAMES:
        name = short_name("legacy_", name)
    taken.add(name)
    return Lookup(
        name=name,
        column=column.name,
        type=column.stored or "text",
        collation=column.collation if column.stored else None,
        as_text=column.stored is None,
    )


def _rendering(column: Column) -> str:
    """A time or a binary value would otherwise look as the reader's session wants it to."""
    return {"timestamptz": "utc", "bytea": "hex"}.get(column.base, "plain")
