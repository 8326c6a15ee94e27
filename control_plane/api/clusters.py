"""`/clusters`: the PostgreSQL servers that tenants live on."""

from __future__ import annotations

from fastapi import APIRouter

from control_plane.api.access import ClustersRead, ClustersWrite, Plane
from control_plane.api.documented import problems
from control_plane.api.schemas import Cluster, ClusterCreate, ClusterUpdate
from control_plane.tenants import clusters

router = APIRouter(prefix="/clusters", tags=["clusters"])


@router.get("", response_model=list[Cluster], summary="List clusters", responses=problems(401, 403, 503))
async def list_clusters(_: ClustersRead, plane: Plane) -> list[clusters.ClusterRecord]:
    return await clusters.list_clusters(plane.databases)


@router.post(
    "",
    status_code=201,
    response_model=Cluster,
    summary="Register a cluster",
    responses=problems(400, 401, 403, 409, 413, 503),
)
async def add_cluster(body: ClusterCreate, principal: ClustersWrite, plane: Plane) -> clusters.ClusterRecord:
    """Refused when the server cannot isolate tenants; the answer names the finding and its fix."""
    return await clusters.add_cluster(
        plane.databases,
        body.name,
        body.dsn.get_secret_value(),
        region=body.region,
        isolations=list(body.isolations),
        capacity=body.capacity,
        pooler=body.pooler,
        actor=principal.subject,
    )


@router.patch(
    "/{name}",
    response_model=Cluster,
    summary="Change a cluster",
    responses=problems(400, 401, 403, 404, 413, 503),
)
async def update_cluster(
    name: str, body: ClusterUpdate, principal: ClustersWrite, plane: Plane
) -> clusters.ClusterRecord:
    """Put a pooler between requests and the server, or take it away; refused when it does not answer."""
    return await clusters.set_pooler(plane.databases, name, body.pooler, actor=principal.subject)
