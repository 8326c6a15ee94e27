"""No customer of the help desk reads, changes or notices what belongs to another."""

from __future__ import annotations

from typing import Any, ClassVar

from control_plane.testing import TenancyContract, Tenant


class TestTenancy(TenancyContract):
    public = ("/healthz",)
    bodies: ClassVar = {
        "PUT /tickets/{ticket_id}/assignee": lambda ids: {"agent_id": ids["agent_id"]},
        "POST /tickets/{ticket_id}/comments": {"body": "not my ticket"},
    }

    def fill(self, tenant: Tenant, marker: str) -> dict[str, Any]:
        agent = tenant.client.post("/agents", json={"name": f"Agent {marker}"}).json()
        ticket = tenant.client.post("/tickets", json={"subject": f"Broken: {marker}"}).json()
        tenant.client.put(f"/tickets/{ticket['id']}/assignee", json={"agent_id": agent["id"]})
        comment = tenant.client.post(f"/tickets/{ticket['id']}/comments", json={"body": marker}).json()
        return {"ticket_id": ticket["id"], "agent_id": agent["id"], "comment_id": comment["id"], "q": marker}
