"""What a route asks for: `TenantSession` and `CurrentPrincipal`, as annotated parameters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from control_plane.errors import ConfigurationError
from control_plane.identity.middleware import require_tenant
from control_plane.identity.principal import Principal
from control_plane.pools.connections import BoundConnection
from control_plane.pools.gate import Caller
from control_plane.tenancy.opened import OpenTenancy


class TenantToken(SecurityBase):
    """Demands a tenant token: 401 without a token, 403 with another kind."""

    def __init__(self) -> None:
        self.scheme_name = "tenantToken"
        self.model = HTTPBearer(bearerFormat="JWT", description="A tenant token (audience `tenant-api`).")

    async def __call__(self, connection: HTTPConnection) -> Principal:
        return require_tenant(connection.scope)


CurrentPrincipal = Annotated[Principal, Depends(TenantToken())]
"""The verified caller of this request, always with a tenant and a user."""


async def tenant_session(connection: HTTPConnection, principal: CurrentPrincipal) -> AsyncIterator[AsyncSession]:
    async with _opened(connection).sessions.open(_caller(principal)) as session:
        yield session
        await session.commit()


async def tenant_connection(connection: HTTPConnection, principal: CurrentPrincipal) -> AsyncIterator[BoundConnection]:
    async with _opened(connection).connections.begin(_caller(principal)) as bound:
        yield bound


def _opened(connection: HTTPConnection) -> OpenTenancy:
    opened = getattr(connection.app.state, "tenancy", None)
    if not isinstance(opened, OpenTenancy):
        raise ConfigurationError("The application has no tenancy.", hint="Call install_tenancy(app, settings).")
    return opened


def _caller(principal: Principal) -> Caller:
    assert principal.tenant_id is not None
    assert principal.user_id is not None
    return Caller(principal.tenant_id, principal.user_id, None, principal.roles)


TenantSession = Annotated[AsyncSession, Depends(tenant_session, scope="function")]
"""A SQLAlchemy session that works for the tenant of the verified token, with the tables of its home by their plain
names.

It commits when the endpoint has returned, before the answer is sent: a commit that fails is never a 2xx. An exception,
an `HTTPException` too, rolls back; an error that is *returned* as a response does not. The endpoint may commit by
itself, as often as it likes: each new transaction is bound to the tenant again. Between transactions the session holds
no connection. After the endpoint it is closed for good: background tasks and streamed bodies cannot use it. A `yield`
dependency on top of it needs `scope="function"` as well.
"""

TenantConnection = Annotated[BoundConnection, Depends(tenant_connection, scope="function")]
"""An asyncpg connection inside one transaction of the tenant of the verified token; for SQL without SQLAlchemy.

The transaction begins before the endpoint and commits when it has returned, before the answer is sent; an exception
rolls back. The endpoint cannot end it, only make savepoints with `connection.transaction()`: behind a COMMIT the
connection raises. After the endpoint it is of no use.
"""
