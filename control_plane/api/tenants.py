"""`/tenants`: onboarding and the life of a tenant."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Path, Query, Request, Response

from control_plane.api.access import Plane, TenantsRead, TenantsWrite
from control_plane.api.documented import LOCATION, problems
from control_plane.api.schemas import Isolation, Tenant, TenantCreate, TenantPage, TenantStatus, TenantUpdate
from control_plane.operations.engine import NewTenant
from control_plane.operations.records import OperationRecord
from control_plane.tenants import changes, records

router = APIRouter(prefix="/tenants", tags=["tenants"])

NO_NUL = r"^[^\x00]*$"  # which PostgreSQL cannot even compare

Ref = Annotated[str, Path(description="The tenant's slug or id.", max_length=100, pattern=NO_NUL, examples=["acme"])]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Sending the same request again with the same key answers the first one's tenant.",
    ),
]


@router.post(
    "",
    status_code=201,
    response_model=Tenant,
    summary="Onboard a tenant",
    responses={
        201: {"description": "The tenant is active.", "headers": LOCATION},
        202: {
            "description": "Still at work; `Location` is the operation to poll.",
            "model": Tenant,
            "headers": LOCATION,
        },
        **problems(400, 401, 403, 404, 409, 413, 422, 503),
    },
)
async def create_tenant(
    body: TenantCreate,
    principal: TenantsWrite,
    plane: Plane,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> records.TenantRecord:
    tenant, operation = await plane.operations.create_tenant(
        NewTenant(**body.model_dump()),
        actor=principal.subject,
        idempotency_key=idempotency_key,
        wait=plane.settings.provision_wait,
    )
    if operation.status == "succeeded":
        response.headers["Location"] = f"/tenants/{tenant.slug}"
    else:
        _accept(response, operation)
    return tenant


@router.get("", response_model=TenantPage, summary="List tenants", responses=problems(400, 401, 403, 503))
async def list_tenants(
    _: TenantsRead,
    plane: Plane,
    request: Request,
    response: Response,
    status: TenantStatus | None = None,
    isolation: Isolation | None = None,
    version: Annotated[int | None, Query(ge=0, le=2_147_483_647, description="Pattern version.")] = None,
    cluster: Annotated[str | None, Query(max_length=63, pattern=NO_NUL)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")] = None,
) -> records.Page:
    page = await records.list_tenants(
        plane.databases,
        status=status,
        isolation=isolation,
        version=version,
        cluster=cluster,
        limit=limit,
        cursor=cursor,
    )
    if page.next_cursor is not None:
        query = urlencode({**request.query_params, "cursor": page.next_cursor})
        response.headers["Link"] = f'</tenants?{query}>; rel="next"'
    return page


@router.get("/{ref}", response_model=Tenant, summary="Show a tenant", responses=problems(400, 401, 403, 404, 503))
async def get_tenant(ref: Ref, _: TenantsRead, plane: Plane) -> records.TenantRecord:
    return await records.get_tenant(plane.databases, ref)


@router.patch(
    "/{ref}",
    response_model=Tenant,
    summary="Change a tenant's name, plan or labels",
    responses=problems(400, 401, 403, 404, 409, 413, 422, 503),
)
async def update_tenant(ref: Ref, body: TenantUpdate, principal: TenantsWrite, plane: Plane) -> records.TenantRecord:
    return await changes.update_tenant(
        plane.databases, ref, actor=principal.subject, **body.model_dump(exclude_unset=True)
    )


@router.post(
    "/{ref}/suspend",
    response_model=Tenant,
    summary="Suspend a tenant: its requests are refused at once",
    responses=problems(400, 401, 403, 404, 409, 503),
)
async def suspend_tenant(ref: Ref, principal: TenantsWrite, plane: Plane) -> records.TenantRecord:
    return await changes.suspend_tenant(plane.databases, ref, actor=principal.subject)


@router.post(
    "/{ref}/resume",
    response_model=Tenant,
    summary="Resume a suspended tenant",
    responses=problems(400, 401, 403, 404, 409, 503),
)
async def resume_tenant(ref: Ref, principal: TenantsWrite, plane: Plane) -> records.TenantRecord:
    return await changes.resume_tenant(plane.databases, ref, actor=principal.subject)


@router.delete(
    "/{ref}",
    status_code=204,
    response_class=Response,
    summary="Delete a tenant and all of its data",
    responses={
        204: {"description": "The tenant and its data are gone."},
        202: {"description": "Still at work; `Location` is the operation to poll.", "headers": LOCATION},
        **problems(400, 401, 403, 404, 409, 503),
    },
)
async def delete_tenant(ref: Ref, principal: TenantsWrite, plane: Plane) -> Response:
    _tenant, operation = await plane.operations.delete_tenant(
        ref, actor=principal.subject, wait=plane.settings.provision_wait
    )
    response = Response(status_code=204)
    if operation.status != "succeeded":
        _accept(response, operation)
    return response


def _accept(response: Response, operation: OperationRecord) -> None:
    response.status_code = 202
    response.headers["Location"] = f"/operations/{operation.id}"
    response.headers["Retry-After"] = "1"
