"""What the help desk does for one customer, in each kind of home."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from control_plane.testing import Tenancy, Tenant
from examples.helpdesk.jobs import ROBOT, escalate

Pair = tuple[Tenant, Tenant]


def open_ticket(tenant: Tenant, subject: str, due_in: timedelta | None = None) -> str:
    due_at = (datetime.now(UTC) + due_in).isoformat() if due_in else None
    answer = tenant.client.post("/tickets", json={"subject": subject, "due_at": due_at})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def priority(tenant: Tenant, ticket: str) -> str:
    return str(tenant.client.get(f"/tickets/{ticket}").json()["priority"])


def test_a_ticket_is_closed_once(tenancy_pair: Pair) -> None:
    acme, _ = tenancy_pair
    ticket = open_ticket(acme, "The printer smokes")
    closed = acme.client.post(f"/tickets/{ticket}/close")
    assert (closed.status_code, closed.json()["status"]) == (200, "closed")
    again = acme.client.post(f"/tickets/{ticket}/close")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


def test_tickets_are_found_by_a_word_and_by_their_status(tenancy_pair: Pair) -> None:
    acme, _ = tenancy_pair
    word = uuid4().hex
    first, second = open_ticket(acme, f"{word} hums"), open_ticket(acme, f"{word} rattles")
    acme.client.post(f"/tickets/{first}/close")
    found = acme.client.get("/tickets", params={"q": word.upper(), "status": "open"}).json()
    assert [ticket["id"] for ticket in found] == [second]
    assert acme.client.get("/tickets", params={"q": f"{word}%"}).json() == []


def test_the_report_counts_what_is_open_and_overdue(tenancy_pair: Pair) -> None:
    acme, _ = tenancy_pair
    agent = acme.client.post("/agents", json={"name": uuid4().hex}).json()
    tickets = [open_ticket(acme, "Late", timedelta(hours=-1)), open_ticket(acme, "Early", timedelta(hours=1))]
    for ticket in tickets:
        acme.client.put(f"/tickets/{ticket}/assignee", json={"agent_id": agent["id"]})
    report = acme.client.get("/reports/workload").json()
    assert {"agent": agent["name"], "open": 2, "overdue": 1} in report


async def test_the_job_escalates_the_overdue_tickets_of_its_tenant(tenancy: Tenancy, tenancy_pair: Pair) -> None:
    acme, other = tenancy_pair
    late, early = open_ticket(acme, "Late", timedelta(hours=-1)), open_ticket(acme, "Early", timedelta(hours=1))
    theirs = open_ticket(other, "Late too", timedelta(hours=-1))
    assert await escalate(acme.slug, ROBOT, of=tenancy.installation.settings) >= 1
    assert [priority(acme, late), priority(acme, early), priority(other, theirs)] == ["high", "normal", "normal"]
    comments = (await acme.async_client.get(f"/tickets/{late}/comments")).json()
    assert [comment["author_id"] for comment in comments] == [str(ROBOT)]


def test_the_job_runs_after_the_answer_too(tenancy_pair: Pair) -> None:
    acme, _ = tenancy_pair
    late = open_ticket(acme, "Late", timedelta(hours=-1))
    assert acme.client.post("/escalations").status_code == 202
    assert priority(acme, late) == "high"
    comments = acme.client.get(f"/tickets/{late}/comments").json()
    assert [comment["author_id"] for comment in comments] == [str(acme.user_id)]
