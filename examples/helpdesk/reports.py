"""Numbers over all tickets of a tenant: plain SQL on the asyncpg connection of its request."""

from fastapi import APIRouter

from control_plane.tenancy import TenantConnection
from examples.helpdesk.schemas import Workload

router = APIRouter(prefix="/reports")

# The connection sees one tenant's rows. Keys begin with tenant_id, so a join names it to use one.
WORKLOAD = """
SELECT agent.name AS agent,
       count(*) FILTER (WHERE ticket.status = 'open') AS open,
       count(*) FILTER (WHERE ticket.status = 'open' AND ticket.due_at < now()) AS overdue
FROM tb_ticket AS ticket
LEFT JOIN tb_agent AS agent ON agent.tenant_id = ticket.tenant_id AND agent.id = ticket.assignee_id
GROUP BY agent.id, agent.name
ORDER BY open DESC, agent.name
"""


@router.get("/workload", response_model=list[Workload])
async def workload(connection: TenantConnection) -> object:
    return [dict(row) for row in await connection.fetch(WORKLOAD)]
