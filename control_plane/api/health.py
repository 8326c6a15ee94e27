"""`/healthz`: the process answers. `/readyz`: it can serve a cluster."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from control_plane.api import schemas
from control_plane.api.readiness import Readiness

router = APIRouter(tags=["health"])


def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


@router.get("/healthz", response_model=schemas.Health, summary="Liveness")
async def healthz() -> schemas.Health:
    return schemas.Health()


@router.get(
    "/readyz",
    response_model=schemas.Readiness,
    summary="Readiness: 200 when any cluster can be served",
    responses={503: {"model": schemas.Readiness, "description": "No cluster can be served, or the process ends."}},
)
async def readyz(response: Response, readiness: Annotated[Readiness, Depends(_readiness)]) -> schemas.Readiness:
    state = await readiness.state()
    if state.status != "ready":
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return schemas.Readiness(
        status=state.status, registry=state.registry, revocations=state.revocations, clusters=state.clusters
    )
