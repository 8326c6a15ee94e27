"""Tickets, their comments and the agents who answer them: with SQLAlchemy, in the session of the request's tenant."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Query
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB

from control_plane.tenancy import TenantSession
from examples.helpdesk.models import Agent, Comment, Ticket
from examples.helpdesk.schemas import (
    AgentOut,
    Assignment,
    CommentOut,
    NewAgent,
    NewComment,
    NewTicket,
    TicketOut,
)

router = APIRouter()

CLOSE = text("SELECT fn_close_ticket(:input)").bindparams(bindparam("input", type_=JSONB)).columns(result=JSONB)


async def ticket_of_path(ticket_id: UUID, session: TenantSession) -> Ticket:
    """The ticket that the path names; one of another tenant is not found, as one that never was."""
    ticket = await session.get(Ticket, ticket_id)
    if ticket is None:
        raise HTTPException(404)
    return ticket


TicketOfPath = Annotated[Ticket, Depends(ticket_of_path)]


@router.get("/agents", response_model=list[AgentOut])
async def list_agents(session: TenantSession) -> object:
    return (await session.scalars(select(Agent).order_by(Agent.name, Agent.id))).all()


@router.post("/agents", status_code=201, response_model=AgentOut)
async def add_agent(new: NewAgent, session: TenantSession) -> object:
    agent = Agent(name=new.name)
    session.add(agent)
    await session.flush()
    return agent


@router.get("/tickets", response_model=list[TicketOut])
async def list_tickets(
    session: TenantSession,
    status: str | None = None,
    q: Annotated[str | None, Query(max_length=200, description="A word of the subject.")] = None,
) -> object:
    tickets = select(Ticket).order_by(Ticket.created_at.desc(), Ticket.id).limit(100)
    if status is not None:
        tickets = tickets.where(Ticket.status == status)
    if q is not None:
        tickets = tickets.where(Ticket.subject.icontains(q, autoescape=True))
    return (await session.scalars(tickets)).all()


@router.post("/tickets", status_code=201, response_model=TicketOut)
async def open_ticket(new: NewTicket, session: TenantSession) -> object:
    ticket = Ticket(subject=new.subject, due_at=new.due_at)
    session.add(ticket)
    await session.flush()
    return ticket


@router.get("/tickets/{ticket_id}", response_model=TicketOut)
async def show_ticket(ticket: TicketOfPath) -> object:
    return ticket


@router.put("/tickets/{ticket_id}/assignee", response_model=TicketOut)
async def assign_ticket(ticket: TicketOfPath, assignment: Assignment, session: TenantSession) -> object:
    # The foreign key carries the tenant, so it would refuse another tenant's agent; 404 says it better.
    if await session.get(Agent, assignment.agent_id) is None:
        raise HTTPException(404)
    ticket.assignee_id = assignment.agent_id
    return ticket


@router.post("/tickets/{ticket_id}/close", response_model=TicketOut)
async def close_ticket(ticket: TicketOfPath, session: TenantSession) -> object:
    """By the function that the tenant API calls too, so that there is one rule for both."""
    result = await session.scalar(CLOSE, {"input": {"id": str(ticket.id)}})
    if not result["success"]:
        raise HTTPException(409)
    await session.refresh(ticket)
    return ticket


@router.get("/tickets/{ticket_id}/comments", response_model=list[CommentOut])
async def list_comments(ticket: TicketOfPath, session: TenantSession) -> object:
    comments = select(Comment).where(Comment.ticket_id == ticket.id).order_by(Comment.created_at, Comment.id)
    return (await session.scalars(comments)).all()


@router.post("/tickets/{ticket_id}/comments", status_code=201, response_model=CommentOut)
async def add_comment(ticket: TicketOfPath, new: NewComment, session: TenantSession) -> object:
    comment = Comment(ticket_id=ticket.id, body=new.body)
    session.add(comment)
    await session.flush()
    return comment
