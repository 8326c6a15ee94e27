"""`template.toml`: what the API exposes of a template, and from which pattern version on."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from control_plane.errors import TemplateInvalid

IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
Identifier = Annotated[str, StringConstraints(pattern=f"^{IDENTIFIER.pattern}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Since(_Strict):
    since: Annotated[int, Field(ge=1)] = 1


class DeclaredResource(_Strict):
    """A view of the API schemas: `columns` beside `data`, a total order, limits in rows."""

    columns: tuple[Identifier, ...]
    order: tuple[Identifier, ...]
    default_limit: Annotated[int, Field(ge=1)] = 100
    max_limit: Annotated[int, Field(ge=1)] = 1000
    api: tuple[int, ...] | None = None  # the API versions that have it; None = all
    since: int = 1

    @model_validator(mode="after")
    def _order_is_declared(self) -> DeclaredResource:
        unknown = set(self.order) - set(self.columns)
        if unknown or not self.order:
            raise ValueError(f"order must name declared columns, not {sorted(unknown)}")
        return self


class DeclaredFunction(_Strict):
    """A function of the API schemas that takes one jsonb argument and answers a mutation result."""

    read_only: bool = False
    api: tuple[int, ...] | None = None
    since: int = 1


class DefaultApi(Since):
    api: int


class Deprecation(_Strict):
    """A field (or, without `field`, a whole resource) that goes away after `sunset`."""

    api: int
    resource: Identifier
    field: str | None = None
    replacement: str | None = None
    since: int
    sunset: date


class Manifest(_Strict):
    name: Identifier
    extensions: tuple[Identifier, ...] = ()
    api: dict[int, Since]
    default_api: tuple[DefaultApi, ...]
    resources: dict[Identifier, DeclaredResource] = {}
    functions: dict[Identifier, DeclaredFunction] = {}
    helpers: dict[Identifier, Since] = {}
    deprecations: tuple[Deprecation, ...] = ()


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
