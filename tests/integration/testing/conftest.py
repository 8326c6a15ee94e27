"""The plugin's own fixtures, on the session's server, with the smallest template."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anyio.from_thread import BlockingPortal

from control_plane.testing import Installation
from control_plane.testing.installation import open_installation
from tests.support.servers import Server


@pytest.fixture(scope="session")
def tenancy_installation(server: Server, tenancy_portal: BlockingPortal) -> Iterator[Installation]:
    modes = ("shared", "schema", "database")
    opening = open_installation(server.dsn, templates=None, template="starter", modes=modes)
    with tenancy_portal.wrap_async_context_manager(opening) as installation:
        yield installation
