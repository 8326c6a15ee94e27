"""The gated statements that read a list, a page of it or a batch of its lines: one statement, one round trip each.

The text is constant per (schema, API version, resource, shape), so every connection prepares it once. What goes on
from a place compares rows, `(created_at, id) > (…, …)`, which is one range of an index, under row-level security too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import count

import asyncpg

from control_plane.pools.clauses import condition_text, literal, sort_text
from control_plane.pools.gate import READ, Caller, fresh_tag, quoted, quoted_object, tag_of
from control_plane.pools.listing import Form, Known, Listing, Page, Shape, Way

# One value, a record, so that all of it hangs on the gate. Its columns are those of `Page`, as far as they are needed.
_LIST = "\nSELECT CASE WHEN {gate} THEN (\n    {common}{record}\n) END"

# Several aggregates of one pass: the inner LIMIT keeps their input in order. Where cursors are wanted, one row more
# than the limit is read, which tells whether there are more.
_READ = "SELECT ROW({columns})\n    FROM ({rows}) page{opened}"

# Of documents with versions the first pass reads keys and versions. The second one, for the documents, is an InitPlan
# that runs only when the caller does not have them.
_READ_UNKNOWN = (
    "SELECT ROW({columns})\n    FROM (\n        SELECT {seen}\n        FROM ({rows}) page{opened}\n    ) seen"
)
_DOCUMENTS = "(SELECT {documents} FROM ({rows}) page)"

_ROWS = "SELECT {columns} FROM {view} WHERE {conditions} ORDER BY {order} LIMIT {limit}"
_TURNED = "SELECT * FROM ({rows}) taken ORDER BY {order}"
_ANY_BEHIND = "(SELECT true FROM {view} WHERE {conditions} ORDER BY {order} LIMIT 1) IS NOT NULL"
_TOTAL = "SELECT count(*) AS total FROM {view} WHERE {conditions}"

# What is looked up once, in a CTE below the gate, and read wherever it is needed.
_PLACE = "(SELECT place FROM opened)"
# The cast stands inside: on PostgreSQL 15 one around the sub-select keeps the comparison out of the index.
_PART = "(SELECT (place ->> {number})::{type} FROM opened)"
_BEHIND = "(SELECT behind FROM around)"
_COUNTED = "(SELECT total FROM counted)"

# A line break stands between two documents and nowhere else: jsonb writes none. So what was read beyond the limit can
# be cut off, without a count of the rows on the way, which would cost each of them.
_JOINED = "string_agg({document}::text, E',\\n')"
_LAST_CUT = "left({joined}, -2 - length(split_part({joined}, E'\\n', -1)))"
_FIRST_CUT = "substr({joined}, strpos({joined}, E'\\n') + 1)"
_LINES = "string_agg({document}::text || E'\\n', '')"

_BODIES = {
    Form.ARRAY: "textsend('[' || {documents} || ']')",
    Form.LINES: "textsend({documents})",
    Form.PAGE: (
        """textsend('{{"items": [' || {documents} || '], "page": ' || json_build_object("""
        "'next', {next}, 'prev', {previous}, 'has_next', {has_next}, 'has_prev', {has_previous})::text || '}}')"
    ),
}

# The keys that are picked: those of them that the document has.
_PICKED = (
    "(SELECT coalesce(jsonb_object_agg(key, data -> key), '{{}}') FROM unnest(${keys}::text[]) AS key WHERE data ? key)"
)


async def read_list(
    connection: asyncpg.Connection,
    caller: Caller,
    schema: str,
    api_version: int,
    resource: str,
    listing: Listing,
    known: Known | None = None,
) -> Page:
    """The `data` documents that `listing` asks for; `known` goes with a shape that has a version."""
    statement = list_statement(schema, api_version, resource, listing.shape)
    return Page(*await connection.fetchval(statement, *caller, *list_arguments(listing, known)))


def list_arguments(listing: Listing, known: Known | None = None) -> list[object]:
    """The parameters of `list_statement` after the caller's."""
    shape, limit, offset, keys, values, place = listing
    arguments: list[object] = [limit]
    if not shape.cursors:
        arguments.append(offset)
    if shape.picked:
        arguments.append(keys)
    if shape.way is not None:
        arguments.append(place)
    if shape.version is not None:
        arguments += known or Known()
    arguments += values
    return arguments


@lru_cache(maxsize=8192)
def list_statement(schema: str, api_version: int, resource: str, shape: Shape) -> str:
    return _Builder(schema, api_version, resource, shape).statement()


class _Builder:
    def __init__(self, schema: str, api_version: int, resource: str, shape: Shape) -> None:
        self.shape = shape
        self.view = quoted_object(schema, api_version, resource)
        self.resource = f"{api_version}.{resource}"
        self.keys = [quoted(sort.column) for sort in shape.order]
        number = count(6)  # of the next parameter
        self.offset = "" if shape.cursors else f" OFFSET ${next(number)}::bigint"
        self.document = _PICKED.format(keys=next(number)) if shape.picked else "data::jsonb"
        self.place = f"${next(number)}" if shape.way is not None else ""
        self.asked, self.tags = (f"${next(number)}", f"${next(number)}") if shape.version is not None else ("", "")
        self.conditions, self.values = ["tenant_id = $1::uuid"], []
        for condition in shape.conditions:
            value = "" if condition.state is not None else f"${next(number)}::text{'[]' * (condition.operator == 'in')}"
            self.conditions.append(condition_text(condition, value))
            self.values += [value] if value else []

    def statement(self) -> str:
        record = self._record() if self.shape.version is None else self._record_if_unknown()
        common = ", ".join(f"{name} AS MATERIALIZED ({text})" for name, text in self._common())
        return _LIST.format(gate=READ, common=f"WITH {common}\n    " if common else "", record=record)

    def _common(self) -> Iterator[tuple[str, str]]:
        """What is looked up once, when it is first asked for, wherever it is needed."""
        way = self.shape.way
        if way is not None and self.shape.form is Form.LINES:
            yield "opened", f"SELECT {self.place}::text::jsonb AS place"
        elif way is not None:
            yield "opened", f"SELECT tenancy.open_cursor({self._scope(way)}, {self.place}::text) AS place"
            behind = _ANY_BEHIND.format(
                view=self.view, conditions=self._where(way.return_), order=self._order(not way.forward)
            )
            yield "around", f"SELECT {behind} AS behind"
        if self.shape.counted:
            yield "counted", _TOTAL.format(view=self.view, conditions=self._where(None))

    def _record(self) -> str:
        """One pass over the rows, with documents and keys."""
        shape = self.shape
        joined = _JOINED.format(document=self.document)
        if shape.form is Form.LINES:
            joined = _LINES.format(document=self.document)
        documents = f"coalesce({joined}, '')"
        if shape.cursors:
            cut = _LAST_CUT if shape.way is None or shape.way.forward else _FIRST_CUT
            documents = f"CASE WHEN count(*) > $5 THEN {cut.format(joined=joined)} ELSE {documents} END"
        columns = self._columns(
            documents=documents,
            rows="least(count(*), $5)" if shape.cursors else "count(*)",
            ahead=self._ahead(),
            behind=self._behind(),
            any_ahead="count(*) > $5",
            place=f"{self._key('count(*)')}::text" if shape.form is Form.LINES else None,
        )
        read = self.keys if shape.cursors or shape.form is Form.LINES else ()
        return _READ.format(columns=columns, rows=self._rows("data", *read), opened=self._opened())

    def _record_if_unknown(self) -> str:
        """One pass over keys and versions, and another one for the documents."""
        shape = self.shape
        assert shape.version is not None
        version = quoted(shape.version)
        told = [f"array_agg({column})" for column in dict.fromkeys((*self.keys, version))]
        told += [_COUNTED] * shape.counted
        told += [_BEHIND] * (shape.way is not None)
        seen = {
            "rows": "least(count(*), $5)" if shape.cursors else "count(*)",
            "ahead": self._ahead(),
            "behind": self._behind(),
            "tag": tag_of(f"{self.asked}::text", *told),
        }
        joined = _JOINED.format(document=self.document)
        documents = _DOCUMENTS.format(
            documents=f"coalesce({joined}, '')", rows=self._rows("data", *self.keys, beyond_limit=False)
        )
        columns = self._columns(
            documents=documents,
            rows="seen.rows",
            ahead="seen.ahead" if seen["ahead"] else None,
            behind="seen.behind" if seen["behind"] else None,
            any_ahead="seen.ahead IS NOT NULL",
            tag="seen.tag",
        )
        return _READ_UNKNOWN.format(
            columns=columns,
            seen=", ".join(f"{text} AS {name}" for name, text in seen.items() if text),
            rows=self._rows(*dict.fromkeys((*self.keys, version))),
            opened=self._opened(),
        )

    def _columns(
        self,
        *,
        documents: str,
        rows: str,
        ahead: str | None,
        behind: str | None,
        any_ahead: str,
        tag: str | None = None,
        place: str | None = None,
    ) -> str:
        """Those of `Page`, in its order; cursors stand in the body of a page, and beside any other."""
        form = self.shape.form
        backward = self.shape.way is not None and not self.shape.way.forward
        any_behind = _BEHIND if behind else "false"
        sides = [(ahead or "NULL::text", any_ahead), (behind or "NULL::text", any_behind)]
        (following, has_next), (previous, has_previous) = reversed(sides) if backward else sides
        body = _BODIES[form].format(
            documents=documents, next=following, previous=previous, has_next=has_next, has_previous=has_previous
        )
        if tag is not None:
            body = f"CASE WHEN {fresh_tag(tag, self.tags)} THEN NULL ELSE {body} END"
        beside = form is not Form.PAGE
        columns = [
            body,
            rows,
            ahead if beside else None,
            _COUNTED if self.shape.counted else None,
            behind if beside else None,
            tag,
            place,
        ]
        while columns[-1] is None:
            columns.pop()
        return ", ".join(column or "NULL::text" for column in columns)

    def _ahead(self) -> str | None:
        if not self.shape.cursors:
            return None
        way = self.shape.way or Way()
        # Read backwards, the rows stand in the order asked for nevertheless, and the one too many is the first.
        sealed = self._sealed(Way(way.forward), self._key("$5" if way.forward else "2"))
        return f"CASE WHEN count(*) > $5 THEN {sealed} END"

    def _behind(self) -> str | None:
        """From the first row on the way; a page that has lost all its rows leads back to where the way here began."""
        way = self.shape.way
        if way is None or not self.shape.cursors:
            return None
        returned = self._sealed(way.return_, _PLACE)
        back = self._sealed(way.back, self._key("1" if way.forward else "count(*)"))
        begun = f"CASE WHEN count(*) = 0 THEN {returned} ELSE {back} END"
        return f"CASE WHEN {_BEHIND} THEN {begun} END"

    def _sealed(self, way: Way, place: str) -> str:
        return f"'{way.letter}' || tenancy.seal_cursor({self._scope(way)}, {place})"

    def _scope(self, way: Way) -> str:
        """What a cursor is good for, besides the tenant: this question from a place on, in this way."""
        asked = [str(sort) for sort in self.shape.order]
        asked += ["&"] + [".".join(map(str, condition)) for condition in self.shape.conditions]
        constant = map(literal, ("list", f"{self.resource}?{','.join(asked)}", way.letter))
        return f"jsonb_build_array({', '.join((*constant, *self.values))})"

    def _key(self, row: str) -> str:
        return f"jsonb_build_array({', '.join(f'(array_agg({key}))[{row}]' for key in self.keys)})"

    def _opened(self) -> str:
        """The place is opened even where there is no row to compare it with."""
        return "" if self.shape.way is None else f" WHERE {_PLACE} IS NOT NULL"

    def _rows(self, *columns: str, beyond_limit: bool = True) -> str:
        way = self.shape.way
        forward = way is None or way.forward
        more = " + 1" if self.shape.cursors and beyond_limit else ""
        rows = _ROWS.format(
            columns=", ".join(columns),
            view=self.view,
            conditions=self._where(way),
            order=self._order(forward),
            limit=f"$5::bigint{more}{self.offset}",
        )
        return rows if forward else _TURNED.format(rows=rows, order=self._order(True))

    def _where(self, way: Way | None) -> str:
        return " AND ".join(self.conditions if way is None else (*self.conditions, self._compared(way)))

    def _compared(self, way: Way) -> str:
        rising = way.forward != self.shape.order[0].descending
        values = (_PART.format(number=number, type=sort.type) for number, sort in enumerate(self.shape.order))
        operator = (">" if rising else "<") + ("=" if way.included else "")
        return f"ROW({', '.join(self.keys)}) {operator} ROW({', '.join(values)})"

    def _order(self, forward: bool) -> str:
        return ", ".join(map(sort_text, self.shape.order, self.keys, [forward] * len(self.keys)))
