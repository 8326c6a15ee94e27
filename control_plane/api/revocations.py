"""`/revocations`: tokens that are taken back before they expire."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Body, Query, Request, Response

from control_plane.api.access import Plane, RevocationsRead, RevocationsWrite
from control_plane.api.documented import problems
from control_plane.api.revocation_schemas import Revocation, RevocationCreate, RevocationPage
from control_plane.tenants import revocations
from control_plane.tenants.revocations import Target

router = APIRouter(prefix="/revocations", tags=["revocations"])


@router.post(
    "",
    status_code=201,
    response_model=Revocation,
    summary="Take tokens back",
    responses=problems(400, 401, 403, 404, 413, 503),
)
async def revoke(
    body: Annotated[RevocationCreate, Body(discriminator="kind")], principal: RevocationsWrite, plane: Plane
) -> revocations.RevocationRecord:
    """In force within a moment, and within 30 seconds in a process that heard no notice. It cannot be undone."""
    given = body.model_dump()
    times = {name: given.pop(name) for name in ("issued_before", "expires_at") if name in given}
    return await revocations.revoke(plane.databases, Target(**given), **times, actor=principal.subject)


@router.get(
    "",
    response_model=RevocationPage,
    summary="List revocations, the newest first",
    responses=problems(400, 401, 403, 503),
)
async def list_revocations(
    _: RevocationsRead,
    plane: Plane,
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")] = None,
) -> revocations.RevocationPage:
    page = await revocations.list_revocations(plane.databases, limit=limit, cursor=cursor)
    if page.next_cursor is not None:
        query = urlencode({**request.query_params, "cursor": page.next_cursor})
        response.headers["Link"] = f'</revocations?{query}>; rel="next"'
    return page
