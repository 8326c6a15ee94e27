"""What the library keeps open: the registry, the pools, and the two ways to a tenant's rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from control_plane.errors import ConfigurationError
from control_plane.pools.connections import TenantConnections
from control_plane.pools.databases import Databases
from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools
from control_plane.pools.sessions import TenantSessions
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings


@dataclass(frozen=True)
class OpenTenancy:
    """Sessions and connections over the same pools, and so under the same budget."""

    databases: Databases
    placements: Placements
    sessions: TenantSessions
    connections: TenantConnections
    loop: asyncio.AbstractEventLoop  # of the connections: no other loop can use them


def require_installation(settings: Settings) -> None:
    """Raises `ConfigurationError` unless `settings` name an installation."""
    if settings.database_url is None or settings.secret_key is None:
        raise ConfigurationError(
            "The library joins an installation of the control plane, and does not know which.",
            hint="Set CP_DATABASE_URL and CP_SECRET_KEY to what the service has.",
        )


@asynccontextmanager
async def open_tenancy(settings: Settings) -> AsyncIterator[OpenTenancy]:
    """Raises `ConfigurationError`; connects when something is asked for."""
    require_installation(settings)
    assert settings.database_url is not None
    assert settings.secret_key is not None
    async with AsyncExitStack() as stack:
        box = SecretBox(settings.secret_key.get_secret_value())
        databases = Databases(settings.database_url.get_secret_value(), box, settings)
        stack.push_async_callback(databases.aclose)
        pools = RequestPools(databases, settings, full_reset=True)
        stack.push_async_callback(pools.aclose)
        placements = Placements(databases)
        sessions = TenantSessions(pools, placements)
        stack.push_async_callback(sessions.aclose)
        loop = asyncio.get_running_loop()
        yield OpenTenancy(databases, placements, sessions, TenantConnections(pools, placements), loop)
