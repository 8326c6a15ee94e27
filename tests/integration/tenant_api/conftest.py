"""The tenant API over the homes of a test, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio
from starlette.applications import Starlette

from control_plane.api.routes import routes
from control_plane.pools.deprecated_calls import DeprecatedCalls
from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools
from control_plane.problems import install_problems
from tests.integration.tenant_api.calls import Identity, Services
from tests.support.members import Members


@pytest_asyncio.fixture
async def services(members: Members, pools: RequestPools) -> AsyncIterator[Services]:
    calls = DeprecatedCalls(members.databases)
    yield Services(members.templates, Placements(members.databases), pools, calls)
    await calls.aclose()


@pytest_asyncio.fixture
async def client(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=routes(services))
    app.add_middleware(Identity)
    install_problems(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as opened:
        yield opened
