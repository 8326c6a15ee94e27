"""`tenant_context`: a tenant's session for scripts and background jobs, where no request says whose it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import ConfigurationError
from control_plane.pools.gate import Caller
from control_plane.registry import tenants
from control_plane.settings import Settings
from control_plane.tenancy.opened import OpenTenancy, open_tenancy


@asynccontextmanager
async def tenant_context(
    tenant: UUID | str, user_id: UUID, roles: Sequence[str] = (), *, of: FastAPI | Settings
) -> AsyncIterator[AsyncSession]:
    """A session that works for `tenant` (slug or id) in the name of `user_id`; commits at the end of the block, and
    rolls back when the block raises.

    `of` is the application whose connections are used, while it runs, or the settings of an installation, to which
    connections are opened for the block. Raises `TenantNotFound`, `ConfigurationError`, and what a session does.
    """
    if not all((tenant, isinstance(tenant, UUID | str), isinstance(user_id, UUID))):
        raise ConfigurationError("A context needs a tenant and a user.", hint="Pass a slug or an id, and a user's id.")
    if isinstance(roles, str) or not all(isinstance(role, str) for role in roles):
        raise ConfigurationError("The roles of a context are a list of names.", hint="Pass ['editor'].")
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_tenancy(of)) if isinstance(of, Settings) else _running(of)
        yield await stack.enter_async_context(_session(opened, tenant, user_id, roles))


def _running(app: FastAPI) -> OpenTenancy:
    opened = getattr(getattr(app, "state", None), "tenancy", None)
    if not isinstance(opened, OpenTenancy):
        raise ConfigurationError("The application has no tenancy, or does not run.", hint="Pass settings instead.")
    if opened.loop is not asyncio.get_running_loop():
        raise ConfigurationError(
            "The application runs on another event loop, and its connections belong to that.",
            hint="Pass settings, or hand the work to the application's loop: asyncio.run_coroutine_threadsafe().",
        )
    return opened


@asynccontextmanager
async def _session(
    opened: OpenTenancy, tenant: UUID | str, user_id: UUID, roles: Sequence[str]
) -> AsyncIterator[AsyncSession]:
    async with opened.databases.registry() as registry:
        placed = await tenants.get(registry, tenant)
    async with opened.sessions.open(Caller(placed.tenant.id, user_id, None, tuple(roles))) as session:
        yield session
        await session.commit()
