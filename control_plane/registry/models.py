"""What the registry stores. Alembic's migrations must equal these models (tests/migration)."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Sequence,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ISOLATIONS = ("shared", "schema", "database")
TENANT_STATUSES = ("provisioning", "active", "suspended", "deleting", "deleted")
OPERATION_STATUSES = ("queued", "running", "succeeded", "failed")
RUN_STATUSES = ("queued", "running", "paused", "done", "failed", "halted", "aborted")
RUN_WISHES = ("pause", "abort")
PIN_DAYS = 180  # at most
REVOCATION_KINDS = ("token", "user", "tenant", "subject")
ADOPTION_STATES = ("planned", "applying", "active", "removing")
ADOPTED_TABLE_STATES = ("planned", "building", "filling", "active", "suspending", "suspended")
STAGES = ("orm", "shadow", "views", "functions", "done")


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
        bytes: LargeBinary,
    }


class Timestamps:
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class Installation(Base):
    """One row: the id that role and database names carry, because those are server-wide."""

    __tablename__ = "installation"
    __table_args__ = (Index("uq_installation_single", text("(true)"), unique=True),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Cluster(Timestamps, Base):
    """One PostgreSQL server that tenants can live on."""

    __tablename__ = "clusters"
    __table_args__ = (_one_of("status", ("active", "draining")),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(unique=True)
    dsn: Mapped[bytes]  # sealed; the administrative role's connection string
    pooler: Mapped[str | None]  # address that requests connect to instead, without role, password and database
    database: Mapped[str]  # of shared and schema homes
    region: Mapped[str | None]
    isolations: Mapped[list[str]]  # what may be placed here
    capacity: Mapped[int | None]  # tenants; None = unlimited
    status: Mapped[str] = mapped_column(server_default="active")


class Home(Timestamps, Base):
    """Where data lives: cluster + database + schema, with the login role of its requests."""

    __tablename__ = "homes"
    __table_args__ = (
        _one_of("isolation", ISOLATIONS),
        # One shared home per (cluster, template).
        Index("uq_homes_shared", "cluster_id", "template", unique=True, postgresql_where=text("isolation = 'shared'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("clusters.id"), index=True)
    isolation: Mapped[str]
    template: Mapped[str]
    database: Mapped[str]
    schema_name: Mapped[str]
    role_name: Mapped[str] = mapped_column(unique=True)
    password: Mapped[bytes]  # sealed
    credential_generation: Mapped[int] = mapped_column(server_default="1")
    pattern_version: Mapped[int] = mapped_column(server_default="0")  # a copy: tenancy.homes is the authority
    ready: Mapped[bool] = mapped_column(server_default=text("false"))  # built and reachable


# Never rolled back, so that of two attempts to change a tenant's state the later one has the greater epoch, even when
# the earlier one wakes up last; 1 is what tenants are born with.
tenant_epochs = Sequence("tenant_epochs", start=2, data_type=BigInteger(), metadata=Base.metadata)


class Tenant(Timestamps, Base):
    """One customer of the SaaS company."""

    __tablename__ = "tenants"
    __table_args__ = (
        _one_of("isolation", ISOLATIONS),
        _one_of("status", TENANT_STATUSES),
        Index("uq_tenants_slug", "slug", unique=True, postgresql_where=text("status <> 'deleted'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    slug: Mapped[str]
    name: Mapped[str]
    isolation: Mapped[str]
    plan: Mapped[str | None]
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # str to str
    status: Mapped[str]
    home_id: Mapped[UUID | None] = mapped_column(ForeignKey("homes.id"), index=True)  # None once deleted
    epoch: Mapped[int] = mapped_column(BigInteger, server_default="1")
    deleted_at: Mapped[datetime | None]


class Pin(Base):
    """A tenant whose home of its own is taken no further than a version, until a day."""

    __tablename__ = "pins"
    __table_args__ = (CheckConstraint(f"expires_at <= created_at + interval '{24 * PIN_DAYS} hours'", name="expires"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int]
    reason: Mapped[str]
    actor: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class Operation(Timestamps, Base):
    """A durable, resumable piece of work on a tenant."""

    __tablename__ = "operations"
    __table_args__ = (
        _one_of("status", OPERATION_STATUSES),
        # A tenant has one operation at a time.
        Index("uq_operations_open", "tenant_id", unique=True, postgresql_where=text("status IN ('queued', 'running')")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), index=True)
    kind: Mapped[str]  # provision, delete
    status: Mapped[str] = mapped_column(server_default="queued")
    attempt: Mapped[int] = mapped_column(server_default="0")  # the fence: a step commits only under its attempt
    heartbeat_at: Mapped[datetime | None]  # of the process that holds the attempt
    steps: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))  # the names of the finished ones
    percent: Mapped[int] = mapped_column(server_default="0")
    message: Mapped[str | None]
    parameters: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    error: Mapped[dict[str, Any] | None]  # {code, status, message, hint}
    finished_at: Mapped[datetime | None]


class IdempotencyKey(Base):
    """An Idempotency-Key of a POST, bound to the caller and to the request's hash."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (CheckConstraint("num_nonnulls(operation_id, run_id) = 1", name="leads_to_one"),)

    subject: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    operation_id: Mapped[UUID | None] = mapped_column(ForeignKey("operations.id", ondelete="CASCADE"), index=True)
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class JobMigration(Base):
    """A migration of Procrastinate's tables that has been applied."""

    __tablename__ = "job_migrations"

    name: Mapped[str] = mapped_column(primary_key=True)
    applied_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TemplateVersion(Base):
    """A released template version; its checksum may never change."""

    __tablename__ = "template_versions"

    template: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    checksum: Mapped[str]
    released_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Run(Base):
    """One `migrate-all`, with the runner or the runners that work on it."""

    __tablename__ = "runs"
    __table_args__ = (
        _one_of("status", RUN_STATUSES),
        _one_of("wish", RUN_WISHES),
        # A template has one run at a time.
        Index(
            "uq_runs_open", "template", unique=True, postgresql_where=text("status IN ('queued', 'running', 'paused')")
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    template: Mapped[str]
    target: Mapped[int]
    status: Mapped[str] = mapped_column(server_default="running")
    planned: Mapped[int] = mapped_column(server_default="0")
    done: Mapped[int] = mapped_column(server_default="0")
    failed: Mapped[int] = mapped_column(server_default="0")
    options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # for whoever goes on with it
    actor: Mapped[str] = mapped_column(server_default="library")
    durable: Mapped[bool] = mapped_column(server_default=text("false"))  # workers run it, and take it over
    deadline_at: Mapped[datetime | None]  # after it no further home is taken
    wave: Mapped[str | None]  # where it is
    wish: Mapped[str | None]  # of an operator
    reason: Mapped[str | None]  # why it stopped
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())  # of any of its runners
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class RunHome(Base):
    """The outcome of one home in one run; the databases themselves are the authority."""

    __tablename__ = "run_homes"
    __table_args__ = (Index("ix_run_homes_failed", "run_id", "number", postgresql_where=text("status = 'failed'")),)

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    home_id: Mapped[UUID] = mapped_column(primary_key=True)  # no foreign key: history outlives the home
    cluster: Mapped[str]
    tenant: Mapped[str | None]  # slug; None for shared homes
    from_version: Mapped[int]
    to_version: Mapped[int]
    status: Mapped[str]  # planned, done, failed, skipped
    sqlstate: Mapped[str | None]
    error: Mapped[str | None]
    milliseconds: Mapped[int]
    rows_touched: Mapped[int | None] = mapped_column(BigInteger)  # by the version's own statements, not by requests
    number: Mapped[int] = mapped_column(BigInteger, Identity())  # of the outcomes of a run, in the order of commits


class DeprecatedCall(Base):
    """How often a tenant called something deprecated on one day (UTC)."""

    __tablename__ = "deprecated_calls"

    day: Mapped[date] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)  # no foreign key: history outlives the tenant
    template: Mapped[str] = mapped_column(primary_key=True)
    api: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    resource: Mapped[str] = mapped_column(primary_key=True)  # or rpc/<function>, of an API version that goes as a whole
    calls: Mapped[int] = mapped_column(BigInteger)


class AuditEvent(Base):
    """Who did what to which tenant; append-only."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    actor: Mapped[str]
    action: Mapped[str]
    tenant_id: Mapped[UUID | None] = mapped_column(index=True)
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class Revocation(Base):
    """Tokens that were taken back: one by its id, or those that a user, a tenant or a platform subject had so far."""

    __tablename__ = "revocations"
    __table_args__ = (
        _one_of("kind", REVOCATION_KINDS),
        CheckConstraint(
            "(kind IN ('user', 'tenant')) = (tenant_id IS NOT NULL)"
            " AND (kind IN ('user', 'subject')) = (subject IS NOT NULL)"
            " AND (kind = 'token') = (token_id IS NOT NULL)"
            " AND (kind = 'token') = (issued_before IS NULL)",
            name="target",
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)  # in the order of commits
    kind: Mapped[str]
    tenant_id: Mapped[UUID | None]  # no foreign key: nothing may keep a tenant's row from being deleted
    subject: Mapped[str | None]  # the user's id, or the name of a platform subject
    token_id: Mapped[str | None]  # `jti`
    issued_before: Mapped[datetime | None]
    expires_at: Mapped[datetime]  # no token that this concerns is valid any more
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Adoption(Timestamps, Base):
    """A database that was there before us, and the schema of ours that stands beside its tables."""

    __tablename__ = "adoptions"
    __table_args__ = (_one_of("state", ADOPTION_STATES),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(unique=True)
    dsn: Mapped[bytes]  # sealed
    schema_name: Mapped[str]  # where our objects live
    reader_role: Mapped[str]  # owns them; has SELECT on legacy tables and nothing else there
    writer_role: Mapped[str]  # owns the functions of entities that are being moved; exists only while there are any
    readers: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))  # roles that may read our objects
    state: Mapped[str] = mapped_column(server_default="planned")


class AdoptedTable(Timestamps, Base):
    """One legacy table of an adoption, and how far its projection has got."""

    __tablename__ = "adopted_tables"
    __table_args__ = (_one_of("state", ADOPTED_TABLE_STATES),)

    adoption_id: Mapped[UUID] = mapped_column(ForeignKey("adoptions.id", ondelete="CASCADE"), primary_key=True)
    schema_name: Mapped[str] = mapped_column(primary_key=True)
    table_name: Mapped[str] = mapped_column(primary_key=True)
    mapping: Mapped[dict[str, Any]]  # adoption.mapping.Mapping
    confirmed: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))  # secret columns that are shown
    state: Mapped[str] = mapped_column(server_default="planned")
    cursor: Mapped[dict[str, Any] | None]  # the last key of the fill under way
    rows: Mapped[int] = mapped_column(BigInteger, server_default="0")  # that the fill has gone through
    last_sync_at: Mapped[datetime | None]
    last_sync: Mapped[dict[str, Any] | None]  # counts of the last walk


class AdoptedEntity(Timestamps, Base):
    """An entity on its way from an ORM to views and functions."""

    __tablename__ = "adopted_entities"
    __table_args__ = (
        _one_of("stage", STAGES),
        _one_of("moving_to", STAGES),
        UniqueConstraint("adoption_id", "name"),
        UniqueConstraint("adoption_id", "schema_name", "table_name"),
        ForeignKeyConstraint(
            ["adoption_id", "schema_name", "table_name"],
            ["adopted_tables.adoption_id", "adopted_tables.schema_name", "adopted_tables.table_name"],
            ondelete="CASCADE",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    adoption_id: Mapped[UUID]
    name: Mapped[str]
    schema_name: Mapped[str]
    table_name: Mapped[str]
    orm_role: Mapped[str]
    app_role: Mapped[str]  # calls the functions
    orm_query: Mapped[str | None]  # what the ORM reads; the table when absent
    orm_keys: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # its columns to keys of the document
    stage: Mapped[str] = mapped_column(server_default="orm")
    moving_to: Mapped[str | None]  # recorded before a move and cleared by its end
    grants: Mapped[dict[str, Any] | None]  # {"privileges": […]}: what the ORM's role could write


class AdoptedEntityMove(Base):
    """One finished move of an entity between two stages; append-only."""

    __tablename__ = "adopted_entity_moves"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    entity_id: Mapped[UUID] = mapped_column(ForeignKey("adopted_entities.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor: Mapped[str]
    from_stage: Mapped[str]
    to_stage: Mapped[str]
    report: Mapped[dict[str, Any] | None]  # of the check that allowed it
