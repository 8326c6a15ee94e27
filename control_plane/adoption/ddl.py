"""The SQL that adds an adoption to a database. A plan shows exactly what `apply` runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control_plane.adoption.catalog import adoption_sql
from control_plane.adoption.mapping import Field, Lookup, Mapping
from control_plane.templates.script import quote

# jsonb_build_object takes 100 arguments.
_KEYS_PER_OBJECT = 50


@dataclass(frozen=True)
class Ground:
    """Where an adoption's objects live and whose they are."""

    schema: str
    reader_role: str
    writer_role: str
    readers: Sequence[str]

    def within(self, statements: Iterable[str], role: str | None = None) -> str:
        """One message that runs `statements` as `role` (the reader role) with the adoption's schema as the path."""
        return "\n".join(
            [
                f"SET LOCAL ROLE {quote(role or self.reader_role)};",
                f"SET LOCAL search_path = {quote(self.schema)}, pg_temp;",
                *statements,
                "RESET ROLE;",
            ]
        )

    def qualified(self, name: str) -> str:
        return f"{quote(self.schema)}.{quote(name)}"


def literal(text: str) -> str:
    # A backslash is an ordinary character as long as standard_conforming_strings is on; E'' means the same either way.
    plain = "'" + text.replace("'", "''") + "'"
    return plain if "\\" not in text else "E" + plain.replace("\\", "\\\\")


def array(values: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(map(literal, values))}]::text[]"


def role_ddl(role: str) -> str:
    """Create a role and become a member of it; the name carries the adoption's id, so it can only be ours."""
    return f"""\
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal(role)}) THEN
        CREATE ROLE {quote(role)} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
    END IF;
    IF NOT pg_has_role(current_user, {literal(role)}, 'USAGE') THEN
        GRANT {quote(role)} TO CURRENT_USER;
    END IF;
END
$$;"""


def schema_ddl(ground: Ground) -> str:
    reading = [f"GRANT USAGE ON SCHEMA {quote(ground.schema)} TO {quote(role)};" for role in ground.readers]
    return "\n".join(
        [
            role_ddl(ground.reader_role),
            f"CREATE SCHEMA IF NOT EXISTS {quote(ground.schema)} AUTHORIZATION {quote(ground.reader_role)};",
            ground.within([adoption_sql("library.sql"), *reading]),
        ]
    )


def select_grants(ground: Ground, mapping: Mapping, role: str | None = None) -> str:
    """SELECT on the columns that are shown, and on no other: what is withheld cannot be read even by mistake."""
    source, to = _source(mapping), quote(role or ground.reader_role)
    columns = ", ".join(map(quote, mapping.columns))
    return f"""\
GRANT USAGE ON SCHEMA {quote(mapping.source_schema)} TO {to};
REVOKE SELECT ON {source} FROM {to};
GRANT SELECT ({columns}) ON {source} TO {to};"""


def view_ddl(ground: Ground, mapping: Mapping) -> str:
    lookups = "".join(f"    {_value(each)} AS {quote(each.name)},\n" for each in (*mapping.key, *mapping.lookups))
    return f"""\
CREATE VIEW {ground.qualified(mapping.view)} WITH (security_invoker = true) AS
SELECT
{lookups}{_document(mapping)} AS data
FROM {_source(mapping)} AS t;"""


def projection_ddl(ground: Ground, mapping: Mapping) -> str:
    name = ground.qualified(mapping.projection)
    columns = [f"    {_column(each)} NOT NULL," for each in mapping.key]
    columns += [f"    {_column(each)}," for each in mapping.lookups]
    key = ", ".join(quote(each.name) for each in mapping.key)
    indexes = [
        f"CREATE INDEX ON {name} ({quote(each.name)});" for each in mapping.lookups if each.name != mapping.key[0].name
    ]
    return "\n".join(
        [
            f"CREATE TABLE {name} (",
            *columns,
            "    data jsonb NOT NULL CHECK (jsonb_typeof(data) = 'object'),",
            "    version bigint NOT NULL DEFAULT 1 CHECK (version > 0),",
            "    synced_at timestamptz NOT NULL DEFAULT clock_timestamp(),",
            f"    PRIMARY KEY ({key})",
            ");",
            *indexes,
        ]
    )


def shape(ground: Ground, mapping: Mapping) -> str:
    """Projections of one shape can hold each other's rows."""
    return hashlib.sha256(projection_ddl(ground, mapping).encode()).hexdigest()[:16]


def entry_ddl(ground: Ground, mapping: Mapping) -> str:
    """The table's row in the adoption's own list."""
    values = [
        literal(mapping.label),
        literal(_source(mapping)),
        literal(mapping.view),
        literal(mapping.projection),
        literal(mapping.type_name),
        array(each.name for each in mapping.key),
        array(each.column for each in mapping.key),
        array(each.name for each in mapping.lookups),
        str(mapping.enforced).lower(),
        literal(shape(ground, mapping)),
    ]
    names = ["name", "source", "view_name", "projection", "type_name"]
    names += ["key_columns", "source_key_columns", "lookups", "enforced", "shape"]
    updates = ", ".join(f"{name} = EXCLUDED.{name}" for name in names[1:])
    table = ground.qualified("adopted_tables")
    return f"""\
INSERT INTO {table} ({", ".join(names)})
VALUES ({", ".join(values)})
ON CONFLICT (name) DO UPDATE SET {updates};"""


def reader_grants(ground: Ground, mapping: Mapping) -> list[str]:
    return [
        f"GRANT SELECT ON {ground.qualified(mapping.view)}, {ground.qualified(mapping.projection)} TO {quote(role)};"
        for role in ground.readers
    ]


def _source(mapping: Mapping) -> str:
    return f"{quote(mapping.source_schema)}.{quote(mapping.source_table)}"


def _value(lookup: Lookup) -> str:
    return f"t.{quote(lookup.column)}::text" if lookup.as_text else f"t.{quote(lookup.column)}"


def _column(lookup: Lookup) -> str:
    collation = f" COLLATE {lookup.collation}" if lookup.collation else ""
    return f"{quote(lookup.name)} {lookup.type}{collation}"


def _document(mapping: Mapping) -> str:
    pairs = [f"'__typename', {literal(mapping.type_name)}", *map(_pair, mapping.fields)]
    chunks = [pairs[start : start + _KEYS_PER_OBJECT] for start in range(0, len(pairs), _KEYS_PER_OBJECT)]
    objects = ["jsonb_build_object(\n        " + ",\n        ".join(chunk) + "\n    )" for chunk in chunks]
    return "    " + "\n    || ".join(objects)


def _pair(field: Field) -> str:
    column = f"t.{quote(field.column)}"
    rendered = {
        "plain": column,
        "hex": f"'\\x' || encode({column}, 'hex')",
        "utc": f"CASE WHEN isfinite({column}) THEN (to_jsonb({column} AT TIME ZONE 'UTC') #>> '{{}}') || '+00:00'"
        f" ELSE {column}::text END",
    }[field.rendering]
    return f"{literal(field.column)}, {rendered}"
