"""The application, and a client of it while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from control_plane.settings import Settings
from tests.integration.sessions.application import World
from tests.support.members import Members


@pytest.fixture
def world(members: Members, settings: Settings) -> World:
    small = {"shared_pool_size": 2, "dedicated_pool_size": 2, "acquire_timeout": 30.0}
    return World(members, settings.model_copy(update=small))


@pytest_asyncio.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.running() as opened:
        yield opened
