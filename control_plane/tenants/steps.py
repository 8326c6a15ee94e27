"""What an operation is made of: idempotent steps, each with a name, an effect and a record of it in the registry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.isolation import Isolation, isolation_of
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home, Operation, Tenant
from control_plane.templates import Template


@dataclass(frozen=True)
class Work:
    """What the steps of one operation work on, as the registry had it when the attempt began."""

    databases: Databases
    operation: Operation
    tenant: Tenant
    home: Home
    cluster: Cluster
    template: Template

    @property
    def isolation(self) -> Isolation:
        return isolation_of(self.home.isolation)

    @property
    def parameters(self) -> dict[str, Any]:
        return self.operation.parameters


# Writes what a step did, in the registry transaction that holds the operation.
Record = Callable[[AsyncSession], Awaitable[None]]


@dataclass(frozen=True)
class Step:
    """`run` may be called again after any crash; what it returns is run in the transaction that marks it as done."""

    name: str
    message: str  # what people read while it runs
    percent: int  # of the operation, when it is done
    run: Callable[[Work], Awaitable[Record]]


@dataclass(frozen=True)
class Plan:
    """The steps of one kind of operation; `undo` is what is done instead when a step cannot succeed."""

    kind: str
    steps: tuple[Step, ...]
    undo: Step | None
