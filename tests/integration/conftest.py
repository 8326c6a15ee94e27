"""Tenants of the test's installation, and the pools that their requests use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio

from control_plane.pools.databases import Databases
from control_plane.pools.requests import RequestPools
from control_plane.registry.models import Cluster
from tests.support.members import Members
from tests.support.originals import Originals


@pytest.fixture
def members(databases: Databases, cluster: Cluster, installation_id: UUID, originals: Originals) -> Members:
    return Members(databases, cluster, installation_id, originals)


@pytest_asyncio.fixture
async def pools(members: Members) -> AsyncIterator[RequestPools]:
    opened = RequestPools(members.databases, members.databases.settings)
    yield opened
    await opened.aclose()
