"""`/tenants/{ref}/members`: who is let in to a tenant."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Response

from control_plane.api.access import Plane, TenantsRead, TenantsWrite
from control_plane.api.documented import problems
from control_plane.api.schemas import Member, MemberRoles, Membership, MembershipUpdate
from control_plane.api.tenants import Ref
from control_plane.tenants import members

router = APIRouter(prefix="/tenants/{ref}/members", tags=["tenants"])


@router.get("", response_model=Membership, summary="Show who is let in", responses=problems(400, 401, 403, 404, 503))
async def get_members(ref: Ref, _: TenantsRead, plane: Plane) -> members.Membership:
    return await members.get_membership(plane.databases, ref)


@router.patch(
    "",
    response_model=Membership,
    summary="Let in whom a token names, or only those on the list",
    responses=problems(400, 401, 403, 404, 409, 413, 422, 503),
)
async def set_policy(ref: Ref, body: MembershipUpdate, principal: TenantsWrite, plane: Plane) -> members.Membership:
    return await members.set_policy(plane.databases, ref, body.policy, actor=principal.subject)


@router.put(
    "/{user_id}",
    response_model=Member,
    summary="Add a member, or replace the roles of one",
    responses=problems(400, 401, 403, 404, 409, 413, 422, 503),
)
async def put_member(
    ref: Ref, user_id: UUID, body: MemberRoles, principal: TenantsWrite, plane: Plane
) -> members.Member:
    return await members.put_member(plane.databases, ref, user_id, body.roles, actor=principal.subject)


@router.delete(
    "/{user_id}",
    status_code=204,
    response_class=Response,
    summary="Take a member off the list",
    responses=problems(400, 401, 403, 404, 409, 503),
)
async def remove_member(ref: Ref, user_id: UUID, principal: TenantsWrite, plane: Plane) -> Response:
    await members.remove_member(plane.databases, ref, user_id, actor=principal.subject)
    return Response(status_code=204)
