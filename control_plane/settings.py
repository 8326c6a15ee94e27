"""The settings, read once from `CP_*` environment variables. The only reader of the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

# In a checkout `sql/` and `tenant_templates/` stand beside the package, in a wheel inside it.
_PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """The directory `name` (`sql` or `tenant_templates`) that ships with this package."""
    inside = _PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


class Issuer(BaseModel):
    """A trusted token issuer: who signs, with which keys, for which audience."""

    issuer: str
    algorithms: list[Literal["RS256", "ES256", "HS256"]] = ["RS256"]
    jwks_url: str | None = None  # RS256 / ES256
    jwks_internal: bool = False  # the jwks_url may be http and in a private network
    secret: SecretStr | None = None  # HS256, at least 32 bytes
    key_id: str | None = None  # HS256: the `kid` of its tokens, if they have one
    tenant_audience: str = "tenant-api"
    platform_audience: str = "platform-api"
    tenant_claim: str = "tenant_id"
    roles_claim: str = "roles"


class Settings(BaseSettings):
    """All settings, with the defaults that suit one small server."""

    model_config = SettingsConfigDict(env_prefix="CP_", frozen=True, extra="ignore")

    home: Path = Path(".control-plane")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    drain_seconds: float = Field(default=0.0, ge=0, le=3600)  # of serving with readiness gone, before `serve` ends
    database_url: SecretStr | None = None  # the registry; the embedded server when absent
    database_port: int | None = Field(default=None, ge=1, le=65535)  # opens the embedded server on 127.0.0.1
    secret_key: SecretStr | None = None  # encrypts credentials in the registry; generated in CP_HOME when embedded
    signing_key: SecretStr | None = None  # HS256 development issuer; generated in CP_HOME when embedded
    issuers: list[Issuer] = []  # JSON
    templates: Path = Field(default_factory=lambda: shipped("tenant_templates"))
    template: str = "reference"  # for tenants that name none

    token_leeway: int = Field(default=30, ge=0, le=300)  # seconds of clock skew
    token_cache_size: int = Field(default=20_000, ge=0)
    placement_ttl: float = Field(default=60.0, gt=0)  # seconds
    cluster_connections: int = Field(default=40, ge=2)  # request connections per cluster and process
    shared_pool_size: int = Field(default=8, ge=1)  # per shared home and process
    dedicated_pool_size: int = Field(default=2, ge=1)  # per schema or database home and process
    pool_idle_seconds: float = Field(default=60.0, gt=0)
    acquire_timeout: float = Field(default=2.0, gt=0)  # seconds to wait for a connection before 503
    tenant_queue: int = Field(default=256, ge=1)  # requests of a tenant that may wait; beyond it a 503 at once
    statement_timeout: float = Field(default=5.0, gt=0)  # seconds; of request roles
    provision_wait: float = Field(default=10.0, ge=0)  # seconds that POST /tenants waits before it answers 202
    migrate_concurrency: int = Field(default=8, ge=1)  # homes at a time per cluster, at most
    backfill_share: float = Field(default=0.5, gt=0, le=1)  # of the time that a backfill works
    lock_timeout: float = Field(default=2.0, gt=0)  # seconds; of template DDL
    migrate_statement_timeout: float = Field(default=60.0, ge=0)  # seconds; of a statement of template DDL; 0 = none
    drift_interval: float = Field(default=3600.0, ge=0)  # seconds between a worker's checks of projections; 0 = none
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class ServerForTests(BaseSettings):
    """Where `control_plane.testing` makes its installations: a server, or an embedded one when absent."""

    model_config = SettingsConfigDict(env_prefix="CP_TEST_", frozen=True, extra="ignore")

    database_url: SecretStr | None = None  # of a role with CREATEROLE and CREATEDB that is no superuser
