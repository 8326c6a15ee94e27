"""The plugin's own fixtures, on the session's server, with the smallest template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from anyio.from_thread import BlockingPortal

from control_plane.settings import Settings
from control_plane.testing import Installation
from control_plane.testing.installation import environment, open_installation
from tests.support.servers import Server


@pytest.fixture(scope="session")
def tenancy_installation(server: Server, tenancy_portal: BlockingPortal) -> Iterator[Installation]:
    modes = ("shared", "schema", "database")
    opening = open_installation(server.dsn, templates=None, template="starter", modes=modes)
    with tenancy_portal.wrap_async_context_manager(opening) as installation:
        yield installation


@pytest.fixture(scope="module")
def tenancy_environment(tenancy_settings: Settings) -> Iterator[Mapping[str, str]]:
    """For one module: the other tests of this session want an environment without an installation."""
    variables = environment(tenancy_settings)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables
