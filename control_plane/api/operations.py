"""`/operations`: the progress of work that outlived its request."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from control_plane.api.access import OperationsRead, Plane
from control_plane.api.documented import problems
from control_plane.api.schemas import Operation
from control_plane.operations.records import OperationRecord, get_operation

router = APIRouter(prefix="/operations", tags=["operations"])


@router.get("/{id}", response_model=Operation, summary="Show an operation", responses=problems(400, 401, 403, 404, 503))
async def show_operation(id: UUID, _: OperationsRead, plane: Plane) -> OperationRecord:
    return await get_operation(plane.databases, id)
