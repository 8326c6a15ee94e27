"""The statements that make and drop single objects of a home, from what structure.sql tells of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from control_plane.migrator.structure import LOGIN, Aspects, Key
from control_plane.templates.script import quote

_OWNED = {  # as ALTER … OWNER TO and GRANT … ON name their kinds
    "schema": ("SCHEMA", "SCHEMA"),
    "table": ("TABLE", "TABLE"),
    "view": ("VIEW", "TABLE"),
    "sequence": ("SEQUENCE", "SEQUENCE"),
    "function": ("ROUTINE", "ROUTINE"),
    "type": ("TYPE", "TYPE"),
}
_FIRES = {"on": "ENABLE", "off": "DISABLE", "on replicas": "ENABLE REPLICA", "always": "ENABLE ALWAYS"}


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one home."""

    schema: str
    logins: Sequence[str]

    def schema_of(self, key: Key) -> str:
        return quote(self.schema if key.schema == "base" else f"{self.schema}__{key.schema}")

    def table(self, key: Key) -> str:
        """Of a table, and of what is part of one."""
        return f"{self.schema_of(key)}.{quote(key.relation or key.name)}"

    def of(self, key: Key) -> str:
        """As DDL names an object that has a name of its own."""
        if key.kind == "schema":
            return self.schema_of(key)
        if key.kind != "function":
            return f"{self.schema_of(key)}.{quote(key.name)}"
        name, _, arguments = key.name.partition("(")
        return f"{self.schema_of(key)}.{quote(name)}({arguments.replace('<home>', self.schema)}"

    def roles(self, role: str) -> list[str]:
        """A role as the aspects name it."""
        return [quote(login) for login in self.logins] if role == LOGIN else [role]


def created(names: Names, key: Key, aspects: Aspects, objects: Mapping[Key, Aspects], routine: str | None) -> list[str]:
    """What makes an object, as cp_owner and without grants; `objects` are all of the home, `routine` its text."""
    if key.kind == "table":
        return _created_table(names, key, aspects, objects)
    if key.kind == "function":
        assert routine is not None
        # Born without it, unless the database has lost its default privileges.
        return [routine.rstrip(), f"REVOKE ALL ON ROUTINE {names.of(key)} FROM PUBLIC"]
    if key.kind == "trigger":
        fires = [] if aspects["fires"] == "on" else [fires_as(names, key, aspects["fires"])]
        return [aspects["definition"], *fires]
    return [_CREATED[key.kind](names, key, aspects)]


def dropped(names: Names, key: Key) -> str:
    """Without CASCADE: what depends on it must be gone before."""
    if key.kind == "constraint":
        return f"ALTER TABLE {names.table(key)} DROP CONSTRAINT {quote(key.name)}"
    if key.kind in ("policy", "trigger", "rule"):
        return f"DROP {key.kind.upper()} {quote(key.name)} ON {names.table(key)}"
    kind = "ROUTINE" if key.kind == "function" else key.kind.upper()
    name = f"{names.schema_of(key)}.{quote(key.name)}" if key.kind in ("index", "statistics") else names.of(key)
    return f"DROP {kind} {name}"


def column(key: Key, aspects: Aspects) -> str:
    """A column as CREATE TABLE and ADD COLUMN define it."""
    parts = [quote(key.name), aspects["type"]]
    if "collation" in aspects:
        parts.append(f"COLLATE {aspects['collation']}")
    if "generated" in aspects:
        expression, _, how = aspects["generated"].rpartition(" ")
        parts.append(f"GENERATED ALWAYS AS ({expression}) {how}")
    if "identity" in aspects:
        parts.append(f"GENERATED {aspects['identity']} AS IDENTITY")
    if "default" in aspects:
        parts.append(f"DEFAULT {aspects['default']}")
    if aspects["not null"]:
        parts.append("NOT NULL")
    return " ".join(parts)


def replaced_view(names: Names, key: Key, aspects: Aspects) -> str:
    options = aspects.get("options")
    with_options = f" WITH ({', '.join(options)})" if options else ""
    return f"CREATE OR REPLACE VIEW {names.of(key)}{with_options} AS\n{aspects['definition']}"


def fires_as(names: Names, key: Key, fires: str) -> str:
    return f"ALTER TABLE {names.table(key)} {_FIRES[fires]} TRIGGER {quote(key.name)}"


def owned_sequence(names: Names, key: Key, aspects: Aspects) -> str:
    by = aspects.get("owned by")
    place = f"{names.schema_of(key)}.{quote(by[0])}.{quote(by[1])}" if by else "NONE"
    return f"ALTER SEQUENCE {names.of(key)} OWNED BY {place}"


def owned(names: Names, key: Key, owner: str) -> list[str]:
    """Gives an object to `owner`, who must be able to create in the schema for the length of the statement."""
    kind, _ = _OWNED[key.kind]
    (role,) = names.roles(owner)[:1]
    alter = f"ALTER {kind} {names.of(key)} OWNER TO {role}"
    if owner == "cp_owner" or key.kind == "schema":
        return [alter]
    schema = names.schema_of(key)
    return [f"GRANT CREATE ON SCHEMA {schema} TO {role}", alter, f"REVOKE CREATE ON SCHEMA {schema} FROM {role}"]


def granted(names: Names, key: Key, grantee: str, wanted: Sequence[str], present: Sequence[str] = ()) -> Iterator[str]:
    """From the privileges that `grantee` has to those that it should have; one that may be passed on ends with *."""
    target = _grant_target(names, key)
    roles = ", ".join(names.roles(grantee))
    missing = sorted(each for each in set(wanted) - set(present) if f"{each}*" not in present)
    for suffix, some in (
        ("", [each for each in missing if not each.endswith("*")]),
        (" WITH GRANT OPTION", [each for each in missing if each.endswith("*")]),
    ):
        if some:
            yield f"GRANT {_privileges(key, some)} ON {target} TO {roles}{suffix}"
    extra = sorted(set(present) - set(wanted))
    passed_on = [each for each in extra if each.endswith("*") and each.rstrip("*") in wanted]
    if passed_on:
        yield f"REVOKE GRANT OPTION FOR {_privileges(key, passed_on)} ON {target} FROM {roles}"
    gone = [each for each in extra if each not in passed_on and f"{each}*" not in wanted]
    if gone:
        yield f"REVOKE {_privileges(key, gone)} ON {target} FROM {roles}"


def _grant_target(names: Names, key: Key) -> str:
    if key.kind == "column":
        return f"TABLE {names.table(key)}"
    return f"{_OWNED[key.kind][1]} {names.of(key)}"


def _privileges(key: Key, privileges: Sequence[str]) -> str:
    of = f" ({quote(key.name)})" if key.kind == "column" else ""
    return ", ".join(f"{each.rstrip('*')}{of}" for each in privileges)


def _created_table(names: Names, key: Key, aspects: Aspects, objects: Mapping[Key, Aspects]) -> list[str]:
    keys = [Key("column", key.schema, key.name, name) for name in aspects.get("columns", [])]
    columns = ",\n    ".join(column(each, objects[each]) for each in keys)
    content = f"(\n    {columns}\n)"
    if "partition" in aspects:
        content = f"PARTITION OF {aspects['parents'][0]} {aspects['partition']}"
    unlogged = "UNLOGGED " if aspects["persistence"] == "u" else ""
    by = f" PARTITION BY {aspects['partitioned by']}" if "partitioned by" in aspects else ""
    options = f" WITH ({', '.join(aspects['options'])})" if aspects.get("options") else ""
    return [f"CREATE {unlogged}TABLE {names.of(key)} {content}{by}{options}"] + [
        row_security(names, key, aspect, True) for aspect in ("row security", "forced row security") if aspects[aspect]
    ]


def row_security(names: Names, key: Key, aspect: str, on: bool) -> str:
    if aspect == "row security":
        return f"ALTER TABLE {names.of(key)} {'ENABLE' if on else 'DISABLE'} ROW LEVEL SECURITY"
    return f"ALTER TABLE {names.of(key)} {'FORCE' if on else 'NO FORCE'} ROW LEVEL SECURITY"


def _created_policy(names: Names, key: Key, aspects: Aspects) -> str:
    roles = ", ".join(each for role in aspects["roles"] for each in names.roles(role))
    text = f"CREATE POLICY {quote(key.name)} ON {names.table(key)} AS {aspects['form']} FOR {aspects['command']}"
    text += f" TO {roles}"
    if "using" in aspects:
        text += f" USING ({aspects['using']})"
    return text + (f" WITH CHECK ({aspects['check']})" if "check" in aspects else "")


def sequence_options(aspects: Aspects) -> str:
    cycle = "CYCLE" if aspects["cycle"] else "NO CYCLE"
    return (
        f"INCREMENT BY {aspects['increment']} MINVALUE {aspects['min']} MAXVALUE {aspects['max']} "
        f"START WITH {aspects['start']} CACHE {aspects['cache']} {cycle}"
    )


def _created_type(names: Names, key: Key, aspects: Aspects) -> str:
    name, form = names.of(key), aspects["form"]
    if form == "enum":
        return f"CREATE TYPE {name} AS ENUM ({', '.join(map(literal, aspects['labels']))})"
    if form == "composite":
        return f"CREATE TYPE {name} AS ({', '.join(aspects['columns'])})"
    parts = [f"CREATE DOMAIN {name} AS {aspects['type']}"]
    parts += [f"DEFAULT {aspects['default']}"] if "default" in aspects else []
    parts += ["NOT NULL"] if aspects["not null"] else []
    parts += [f"CONSTRAINT {quote(check)} {text}" for check, text in sorted(aspects.get("checks", {}).items())]
    return " ".join(parts)


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _created_schema(names: Names, key: Key, aspects: Aspects) -> str:
    return f"CREATE SCHEMA {names.of(key)}"


def _created_column(names: Names, key: Key, aspects: Aspects) -> str:
    return f"ALTER TABLE {names.table(key)} ADD COLUMN {column(key, aspects)}"


def _created_constraint(names: Names, key: Key, aspects: Aspects) -> str:
    suffix = "" if aspects["validated"] else " NOT VALID"
    return f"ALTER TABLE {names.table(key)} ADD CONSTRAINT {quote(key.name)} {aspects['definition']}{suffix}"


def _created_sequence(names: Names, key: Key, aspects: Aspects) -> str:
    return f"CREATE SEQUENCE {names.of(key)} AS {aspects['type']} {sequence_options(aspects)}"


def _defined(names: Names, key: Key, aspects: Aspects) -> str:
    """An index of a partitioned table is printed as if its partitions had none."""
    definition: str = aspects["definition"]
    return definition.rstrip(";").replace(" ON ONLY ", " ON ", 1)


_CREATED: dict[str, Callable[[Names, Key, Aspects], str]] = {
    "schema": _created_schema,
    "type": _created_type,
    "sequence": _created_sequence,
    "column": _created_column,
    "constraint": _created_constraint,
    "view": replaced_view,
    "policy": _created_policy,
    "index": _defined,
    "statistics": _defined,
    "rule": _defined,
}
