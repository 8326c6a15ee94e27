"""The verbs of one process, on the session's server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from control_plane.operations.engine import Operations
from control_plane.operations.timing import Timing
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.settings import Settings
from control_plane.templates import Templates

# Everything happens as with the product's timing, only sooner.
FAST = Timing(heartbeat=0.2, silence=1.0, poll=0.2, repair=0.5, look=0.05, grace=2.0, longest=2.0, drain=5.0)


@pytest.fixture
def templates(settings: Settings) -> Templates:
    return Templates.load(settings.templates)


@pytest_asyncio.fixture
async def operations(databases: Databases, templates: Templates, cluster: Cluster) -> AsyncIterator[Operations]:
    """Creates tenants on the cluster `main`."""
    opened = Operations(databases, templates, timing=FAST)
    yield opened
    await opened.aclose()
