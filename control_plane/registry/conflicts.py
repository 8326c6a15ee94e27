"""Which domain error a violated constraint of the registry means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import IntegrityError

from control_plane.errors import (
    AdoptionConflict,
    ClusterNameTaken,
    ControlPlaneError,
    OperationInProgress,
    RunInProgress,
    SlugTaken,
)

MEANINGS: dict[str, type[ControlPlaneError]] = {
    "uq_tenants_slug": SlugTaken,
    "uq_clusters_name": ClusterNameTaken,
    "uq_adoptions_name": AdoptionConflict,
    "uq_operations_open": OperationInProgress,
    "uq_runs_open": RunInProgress,
}


def constraint_of(error: IntegrityError) -> str | None:
    """The name of the violated constraint or unique index."""
    cause = error.orig.__cause__ if error.orig else None
    name = cause.constraint_name if isinstance(cause, asyncpg.IntegrityConstraintViolationError) else None
    return name if isinstance(name, str) else None


@contextmanager
def domain_errors() -> Iterator[None]:
    """Raise the domain error that the violated constraint stands for; any other violation is a bug and passes."""
    try:
        yield
    except IntegrityError as error:
        meaning = MEANINGS.get(constraint_of(error) or "")
        if meaning is None:
            raise
        raise meaning() from error
