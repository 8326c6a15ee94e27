"""The tables of tenant_templates/helpdesk. Their plain names mean those in the home of whoever asks."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID, uuid4

from sqlalchemy import DateTime, FetchedValue
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """`tenant_id` is filled by the database, and is part of every key there; one tenant's session sees one tenant."""

    type_annotation_map: ClassVar = {datetime: DateTime(timezone=True)}

    tenant_id: Mapped[UUID] = mapped_column(server_default=FetchedValue())
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)


class Agent(Base):
    __tablename__ = "tb_agent"

    name: Mapped[str]


class Ticket(Base):
    __tablename__ = "tb_ticket"

    subject: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=FetchedValue())
    assignee_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())
    closed_at: Mapped[datetime | None]
    priority: Mapped[str] = mapped_column(server_default=FetchedValue())
    due_at: Mapped[datetime | None]


class Comment(Base):
    __tablename__ = "tb_comment"

    ticket_id: Mapped[UUID]
    body: Mapped[str]
    author_id: Mapped[UUID] = mapped_column(server_default=FetchedValue())
    created_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())
