"""Rights as annotated parameters: a route's signature says what its caller must hold.

A route without one of these is public, and a test lists the public routes.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from control_plane.identity.middleware import require_platform
from control_plane.identity.principal import Principal
from control_plane.service import ControlPlane


class PlatformToken(SecurityBase):
    """Demands a platform token that holds `scope`: 401 without a token, 403 with another kind or without the scope."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.scheme_name = "platformToken"
        self.model = HTTPBearer(
            bearerFormat="JWT", description="A platform token (audience `platform-api`): `cp token --platform`."
        )

    async def __call__(self, request: Request) -> Principal:
        return require_platform(request.scope, self.scope)


def control_plane(request: Request) -> ControlPlane:
    plane: ControlPlane = request.app.state.control_plane
    return plane


TenantsRead = Annotated[Principal, Depends(PlatformToken("tenants:read"))]
TenantsWrite = Annotated[Principal, Depends(PlatformToken("tenants:write"))]
OperationsRead = Annotated[Principal, Depends(PlatformToken("operations:read"))]
ClustersRead = Annotated[Principal, Depends(PlatformToken("clusters:read"))]
ClustersWrite = Annotated[Principal, Depends(PlatformToken("clusters:write"))]
RevocationsRead = Annotated[Principal, Depends(PlatformToken("revocations:read"))]
RevocationsWrite = Annotated[Principal, Depends(PlatformToken("revocations:write"))]
MigrationsRead = Annotated[Principal, Depends(PlatformToken("migrations:read"))]
MigrationsWrite = Annotated[Principal, Depends(PlatformToken("migrations:write"))]

Plane = Annotated[ControlPlane, Depends(control_plane)]
