"""What comes in and what goes out."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=5000)]


class NewAgent(BaseModel):
    name: Line


class NewTicket(BaseModel):
    subject: Line
    due_at: AwareDatetime | None = None


class NewComment(BaseModel):
    body: Text


class Assignment(BaseModel):
    agent_id: UUID


class Row(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID


class AgentOut(Row):
    name: str


class TicketOut(Row):
    subject: str
    status: str
    priority: str
    assignee_id: UUID | None
    created_at: datetime
    due_at: datetime | None


class CommentOut(Row):
    body: str
    author_id: UUID
    created_at: datetime


class Workload(BaseModel):
    """Of one agent, or of the tickets that nobody has."""

    agent: str | None
    open: int
    overdue: int
