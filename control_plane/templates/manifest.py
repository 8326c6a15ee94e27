"""`template.toml`: what the API exposes of a template, and from which pattern version on."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from control_plane.errors import TemplateInvalid

IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
Identifier = Annotated[str, StringConstraints(pattern=f"^{IDENTIFIER.pattern}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Since(_Strict):
    since: Annotated[int, Field(ge=1)] = 1


# The types that a column may be filtered by. A comparison uses an index only with a value of the very type.
ColumnType = Literal["uuid", "text", "boolean", "integer", "bigint", "numeric", "date", "timestamptz"]
Operator = Literal["eq", "neq", "gt", "gte", "lt", "lte", "in", "is", "like", "ilike"]
# What a query string says otherwise than by a column's name; `columns` and `on_conflict` belong to writes in PostgREST.
RESERVED_PARAMETERS = frozenset(
    {"select", "order", "limit", "offset", "cursor", "and", "or", "not", "columns", "on_conflict"}
)
# Addresses below an API version that are no resources.
RESERVED_RESOURCES = frozenset({"deprecations", "rpc"})
ViewerClass = Literal["public", "self", "moderator", "admin"]


class DeclaredResource(_Strict):
    """A view of the API schemas: `columns` beside `data` with their types, a total order, limits in rows."""

    columns: dict[Identifier, ColumnType]
    # The order when a caller names none; "-created_at" is descending.
    order: tuple[Annotated[str, StringConstraints(pattern=f"^-?{IDENTIFIER.pattern}$")], ...]
    # The columns that a page may be sorted by, in both directions; `key` is appended, so that each order is total.
    sorts: tuple[Identifier, ...] = ()
    key: tuple[Identifier, ...] = ("id",)
    filters: dict[Identifier, tuple[Operator, ...]] = {}
    # The column that rises with every change of a row's document, and never goes back: such a resource has ETags.
    version: Identifier | None = None
    default_limit: Annotated[int, Field(ge=1)] = 100
    max_limit: Annotated[int, Field(ge=1)] = 1000
    api: tuple[int, ...] | None = None  # the API versions that have it; None = all
    since: int = 1

    @model_validator(mode="after")
    def _columns_are_declared(self) -> DeclaredResource:
        for place, named in (
            ("order", {column.removeprefix("-") for column in self.order}),
            ("sorts", set(self.sorts)),
            ("key", set(self.key)),
            ("filters", set(self.filters)),
            ("version", {self.version} if self.version else set()),
        ):
            if unknown := named - set(self.columns):
                raise ValueError(f"{place} must name declared columns, not {sorted(unknown)}")
        if not self.order:
            raise ValueError("order must name declared columns")
        return self

    @model_validator(mode="after")
    def _filters_fit_their_columns(self) -> DeclaredResource:
        if taken := RESERVED_PARAMETERS & set(self.filters):
            raise ValueError(f"filters must not be named like other parameters: {sorted(taken)}")
        for column, operators in self.filters.items():
            if {"like", "ilike"} & set(operators) and self.columns[column] != "text":
                raise ValueError(f"the filter {column} has a pattern, which only a column of type text can match")
        return self


class FieldRule(_Strict):
    """One field of a function's input, in the words of tenancy.input_problems()."""

    type: Literal["string", "uuid", "integer", "decimal", "boolean", "date", "timestamp", "object", "array"]
    required: bool | None = None
    min: int | None = None
    max: int | None = None
    values: tuple[str, ...] | None = None
    pattern: str | None = None
    message: str | None = None
    fields: dict[str, FieldRule] | None = None
    items: FieldRule | None = None


class DeclaredFunction(_Strict):
    """A function of the API schemas that takes one jsonb argument and answers a mutation result."""

    input: dict[str, FieldRule] = {}
    read_only: bool = False
    api: tuple[int, ...] | None = None
    since: int = 1


class Projection(Since):
    """A tv_ table that is kept equal to the view `definition`, one row per row of `source`."""

    source: Identifier
    definition: Identifier
    sync: Identifier  # the function that brings given keys up to date
    follows: tuple[Identifier, ...]  # the tables whose changes it shows


class CachedQuery(Since):
    """A function that reads nothing but `sources`; its answer is kept for `ttl` seconds or until one of them changes.

    One answer serves all viewers of a tenant who have the same `roles` (None: all that a caller has), and with
    `per_user` only one user. The function is told no more of the viewer than that.
    """

    function: Identifier
    parameters: dict[str, FieldRule] = {}
    sources: Annotated[tuple[Identifier, ...], Field(min_length=1)]  # projections
    per_user: bool = True
    roles: tuple[str, ...] | None = None
    ttl: Annotated[int, Field(ge=1, le=86_400)]
    max_bytes: Annotated[int, Field(ge=1)] = 262_144


class ActivityType(Since):
    """One branch of the activity feed: a table and the columns of it that the feed shows as `details`."""

    table: Identifier
    user_column: Identifier
    details: tuple[Identifier, ...] = ()


class ApiVersion(Since):
    """An API version; from the pattern version `retired` on it is gone."""

    retired: int | None = None

    def served(self, pattern_version: int) -> bool:
        return self.since <= pattern_version and (self.retired is None or pattern_version < self.retired)


class DefaultApi(Since):
    api: int


class Deprecation(_Strict):
    """A field that goes away after `sunset`; without `field` a whole resource, without `resource` an API version."""

    api: int
    resource: Identifier | None = None
    field: str | None = None
    replacement: str | None = None
    since: int  # the pattern version that announces it
    announced: date
    sunset: date  # the first day without a promise
    removed_in: int | None = None  # the pattern version that takes it away

    @model_validator(mode="after")
    def _is_in_order(self) -> Deprecation:
        if self.field is not None and self.resource is None:
            raise ValueError("a field belongs to a resource")
        if self.sunset <= self.announced:
            raise ValueError("sunset must come after announced")
        if self.removed_in is not None and self.removed_in <= self.since:
            raise ValueError("removed_in must come after since")
        return self

    def __str__(self) -> str:
        what = f"API version {self.api}" if self.resource is None else f"resource {self.resource} of API {self.api}"
        return what if self.field is None else f"field {self.field} of {what.removeprefix('resource ')}"

    def removed(self, pattern_version: int) -> bool:
        return self.removed_in is not None and self.removed_in <= pattern_version


class Waiver(_Strict):
    """Lets one finding of the gate pass in a file that was released and cannot take a comment any more."""

    place: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}_[a-z0-9_]+(/[a-z0-9_]+\.sql:[1-9][0-9]*)?$")]
    rule: str
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Manifest(_Strict):
    name: Identifier
    extensions: tuple[Identifier, ...] = ()
    api: dict[int, ApiVersion]
    default_api: tuple[DefaultApi, ...]
    resources: dict[Identifier, DeclaredResource] = {}
    functions: dict[Identifier, DeclaredFunction] = {}
    helpers: dict[Identifier, Since] = {}
    # Resource → group of fields → who sees them.
    visibility: dict[Identifier, dict[Identifier, tuple[ViewerClass, ...]]] = {}
    projections: dict[Identifier, Projection] = {}
    cached_queries: dict[Identifier, CachedQuery] = {}
    activity_types: dict[Identifier, ActivityType] = {}
    deprecations: tuple[Deprecation, ...] = ()
    waivers: tuple[Waiver, ...] = ()

    @model_validator(mode="after")
    def _names_no_resource_like_another_address(self) -> Manifest:
        if taken := RESERVED_RESOURCES & set(self.resources):
            raise ValueError(f"resources must not be named like other addresses: {sorted(taken)}")
        return self

    @model_validator(mode="after")
    def _retires_what_was_announced(self) -> Manifest:
        announced = {(entry.api, entry.removed_in) for entry in self.deprecations if entry.resource is None}
        retired = {(number, api.retired) for number, api in self.api.items() if api.retired is not None}
        for number, version in sorted(retired ^ {each for each in announced if each[1] is not None}):
            raise ValueError(
                f"API version {number} is retired in version {version} where api and deprecations both say so"
            )
        for number, version in sorted(retired):
            earlier = [entry for entry in self.default_api if entry.since <= version]
            later = [entry for entry in self.default_api if entry.since > version]
            if number in {entry.api for entry in [*sorted(earlier, key=lambda entry: entry.since)[-1:], *later]}:
                raise ValueError(f"API version {number} is the default when version {version} retires it")
        return self


def read_manifest(path: Path) -> Manifest:
    """Read and check one `template.toml`; raises `TemplateInvalid` that names the place."""
    try:
        return Manifest.model_validate(tomllib.loads(path.read_text("utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise TemplateInvalid(f"{path.parent.name}/template.toml: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise TemplateInvalid(f"{path.parent.name}/template.toml: {place}: {first['msg']}") from error
