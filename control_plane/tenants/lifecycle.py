"""The states of a tenant and all ways from one to another. To repeat a request is no error: some lead to themselves."""

from __future__ import annotations

from control_plane.errors import InvalidTransition

TRANSITIONS: dict[str, dict[str, str]] = {
    # status        action      new status
    "provisioning": {
        "update": "provisioning",
        "activate": "active",
        "abandon": "deleted",
    },
    "active": {
        "update": "active",
        "suspend": "suspended",
        "resume": "active",
        "delete": "deleting",
    },
    "suspended": {
        "update": "suspended",
        "suspend": "suspended",
        "resume": "active",
        "delete": "deleting",
    },
    "deleting": {
        "delete": "deleting",
        "remove": "deleted",
    },
    "deleted": {},
}


def require(status: str, action: str) -> str:
    """The status that `action` leads to; raises `InvalidTransition`."""
    try:
        return TRANSITIONS[status][action]
    except KeyError:
        possible = ", ".join(TRANSITIONS.get(status, {})) or "nothing"
        raise InvalidTransition(f"The tenant is {status}: {action} is not possible, only {possible}.") from None
