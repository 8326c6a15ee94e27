"""`/tenants/{ref}/pin`: how far a tenant may be taken."""

from __future__ import annotations

from fastapi import APIRouter, Response

from control_plane.api.access import Plane, TenantsRead, TenantsWrite
from control_plane.api.documented import problems
from control_plane.api.migration_schemas import Pin, PinPut
from control_plane.api.tenants import Ref
from control_plane.tenants import pins

router = APIRouter(prefix="/tenants/{ref}/pin", tags=["tenants"])


@router.get("", response_model=Pin, summary="Show a tenant's pin", responses=problems(400, 401, 403, 404, 503))
async def get_pin(ref: Ref, _: TenantsRead, plane: Plane) -> pins.PinRecord:
    return await pins.get_pin(plane.databases, ref)


@router.put(
    "",
    response_model=Pin,
    summary="Let no migration take a tenant past a version",
    responses=problems(400, 401, 403, 404, 409, 413, 422, 503),
)
async def put_pin(ref: Ref, body: PinPut, principal: TenantsWrite, plane: Plane) -> pins.PinRecord:
    """For a time, and for a reason. A shared tenant cannot be pinned: its home is everybody's."""
    return await pins.pin_tenant(
        plane.databases,
        plane.templates,
        ref,
        version=body.version,
        reason=body.reason,
        expires=body.expires_at,
        actor=principal.subject,
    )


@router.delete(
    "",
    status_code=204,
    response_class=Response,
    summary="Take a tenant's pin away",
    responses=problems(400, 401, 403, 404, 409, 503),
)
async def remove_pin(ref: Ref, principal: TenantsWrite, plane: Plane) -> Response:
    await pins.unpin_tenant(plane.databases, ref, actor=principal.subject)
    return Response(status_code=204)
