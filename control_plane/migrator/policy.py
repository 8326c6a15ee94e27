"""`migrate.toml`: in which order a fleet is migrated, and when a run stops by itself."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from control_plane.errors import ConfigurationError

Share = Annotated[float, Field(gt=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WavePolicy(_Strict):
    """`canaries` of each cluster, isolation, size and version; `shares` of the fleet, each with those before it."""

    canaries: Annotated[int, Field(ge=0)] = 2
    shares: tuple[Share, ...] = (0.05, 0.25)
    largest: Annotated[float, Field(ge=0, lt=1)] = 0.01  # the share of the fleet that comes last

    @model_validator(mode="after")
    def _shares_rise(self) -> WavePolicy:
        if any(later <= earlier for earlier, later in zip(self.shares, self.shares[1:], strict=False)):
            raise ValueError("shares must rise: each includes those before it")
        return self


class HaltPolicy(_Strict):
    """A run stops after so many failures, or past this share of failures among its latest outcomes."""

    failures: Annotated[int, Field(ge=1)] | None = None
    rate: Share | None = None


class Policy(_Strict):
    internal: dict[str, str] = {"ring": "internal"}  # labels of the tenants that go first; all of them must fit
    waves: WavePolicy = WavePolicy()
    halt: HaltPolicy = HaltPolicy()


def read_policy(path: Path | None) -> Policy:
    """The policy of a file, or the default one for None. Raises `ConfigurationError` that names the place."""
    if path is None:
        return Policy()
    try:
        return Policy.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{path}: {place}: {first['msg']}") from error
