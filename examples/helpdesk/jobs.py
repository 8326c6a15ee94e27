"""Work for a tenant without a request of its own: after an answer, or from a scheduler.

python -m examples.helpdesk.jobs acme globex
"""

import asyncio
import sys
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, FastAPI, Request
from sqlalchemy import func, select, update

from control_plane.tenancy import CurrentPrincipal, Settings, tenant_context
from examples.helpdesk.models import Comment, Ticket

router = APIRouter()

ROBOT = UUID("00000000-0000-4000-8000-000000000001")  # the user in whose name a scheduler works


async def escalate(tenant: UUID | str, user: UUID, *, of: FastAPI | Settings) -> int:
    """Give the tickets of a tenant that are overdue a high priority, and say so in a comment; returns how many."""
    async with tenant_context(tenant, user, of=of) as session:
        overdue = select(Ticket.id).where(
            Ticket.status == "open", Ticket.priority == "normal", Ticket.due_at < func.now()
        )
        tickets = (await session.scalars(overdue.with_for_update(skip_locked=True))).all()
        await session.execute(update(Ticket).where(Ticket.id.in_(tickets)).values(priority="high"))
        session.add_all(Comment(ticket_id=ticket, body="Overdue: the priority is high now.") for ticket in tickets)
        return len(tickets)


@router.post("/escalations", status_code=202)
async def escalate_soon(request: Request, principal: CurrentPrincipal, background: BackgroundTasks) -> None:
    """After the answer, when the session of the request is closed: the job opens its own."""
    assert principal.tenant_id is not None
    assert principal.user_id is not None
    background.add_task(escalate, principal.tenant_id, principal.user_id, of=request.app)


async def main(tenants: list[str]) -> None:
    settings = Settings()
    for tenant in tenants:
        print(tenant, await escalate(tenant, ROBOT, of=settings))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
