"""The table of states and transitions."""

from __future__ import annotations

import pytest

from control_plane.errors import InvalidTransition
from control_plane.registry.models import TENANT_STATUSES
from control_plane.tenants.lifecycle import TRANSITIONS, require


def test_the_table_names_every_status_of_the_registry_and_no_other() -> None:
    assert set(TRANSITIONS) == set(TENANT_STATUSES)
    assert {target for actions in TRANSITIONS.values() for target in actions.values()} <= set(TENANT_STATUSES)


def test_every_status_but_the_first_can_be_reached() -> None:
    reached, frontier = {"provisioning"}, ["provisioning"]
    while frontier:
        found = set(TRANSITIONS[frontier.pop()].values()) - reached
        reached |= found
        frontier += found
    assert reached == set(TENANT_STATUSES)


@pytest.mark.parametrize(
    ("status", "action", "new"),
    [
        ("active", "suspend", "suspended"),
        ("suspended", "suspend", "suspended"),
        ("suspended", "resume", "active"),
        ("active", "resume", "active"),
        ("suspended", "delete", "deleting"),
        ("deleting", "delete", "deleting"),
    ],
)
def test_an_allowed_action_leads_to_its_status(status: str, action: str, new: str) -> None:
    assert require(status, action) == new


@pytest.mark.parametrize(
    ("status", "action"), [("provisioning", "suspend"), ("deleting", "resume"), ("deleted", "delete"), ("active", "x")]
)
def test_any_other_action_is_refused_with_what_is_possible(status: str, action: str) -> None:
    with pytest.raises(InvalidTransition, match=f"The tenant is {status}: {action} is not possible"):
        require(status, action)
