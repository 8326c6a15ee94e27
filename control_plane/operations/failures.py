"""Which failures pass by themselves, and what a failed operation tells its callers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from control_plane.errors import ControlPlaneError, ProvisioningFailed, Unavailable
from control_plane.pools.connect import UNREACHABLE

# Others were in the way for a moment: worth a second try at once.
CONTENTION: tuple[type[BaseException], ...] = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.ObjectInUseError,
)

# An attempt that was paused, or is slow, does the same at this moment. Steps begin by looking at what is there, so that
# the second try finds it; what is still in the way then is no passing matter.
OVERLAP: tuple[type[BaseException], ...] = (
    asyncpg.UniqueViolationError,
    asyncpg.DuplicateObjectError,
    asyncpg.DuplicateDatabaseError,
)

# The server is away, overloaded or restarting: worth another try later.
PASSING: tuple[type[BaseException], ...] = (
    *CONTENTION,
    *UNREACHABLE,
    Unavailable,
    SQLAlchemyError,  # only the registry is used through it, and without the registry nothing can be decided
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
)


def safe_body(error: BaseException) -> dict[str, Any]:
    """What is stored and shown: our own errors as they are, of anything else nothing but that it happened."""
    told = error if isinstance(error, ControlPlaneError) else ProvisioningFailed()
    return {"code": told.code, "status": told.status, "message": told.message, "hint": told.hint}


def revive(body: dict[str, Any]) -> ControlPlaneError:
    """The error that `safe_body` was made of, to be raised again."""
    kind = next((kind for kind in _kinds(ControlPlaneError) if kind.code == body["code"]), ProvisioningFailed)
    return kind(body["message"], hint=body["hint"])


def _kinds(kind: type[ControlPlaneError]) -> Iterator[type[ControlPlaneError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)
