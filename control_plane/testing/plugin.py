"""The pytest plugin: fixtures that run an application on a throw-away installation with two tenants of each kind.

Loaded in every run of an environment that has the package, so it imports nothing until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal
    from fastapi import FastAPI

    from control_plane.settings import Settings
    from control_plane.testing.application import Tenancy, Tenant
    from control_plane.testing.installation import Installation

MODES = ("shared", "schema", "database")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("tenancy_app", "the application: module:name of it, or of a function that makes it from settings")
    parser.addini("tenancy_templates", "the directory of templates; the shipped ones when absent", type="paths")
    parser.addini("tenancy_template", "the template of the tenants; CP_TEMPLATE's default when absent")
    parser.addini("tenancy_roles", "the roles in the tenants' tokens", type="args", default=[])
    parser.addini("tenancy_modes", "the isolation modes to test", type="args", default=list(MODES))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "tenancy_mode" in metafunc.fixturenames:
        metafunc.parametrize("tenancy_mode", _modes(metafunc.config), scope="session")


def _modes(config: pytest.Config) -> list[str]:
    modes: list[str] = config.getini("tenancy_modes")
    if not modes or not set(modes) <= set(MODES):
        raise pytest.UsageError(f"tenancy_modes: some of {' '.join(MODES)}, not {' '.join(modes) or 'nothing'}")
    return modes


@pytest.fixture(scope="session")
def tenancy_portal() -> Iterator[BlockingPortal]:
    """An event loop in a thread of its own, on which installation and applications run for the whole session."""
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal("asyncio") as portal:
        yield portal


@pytest.fixture(scope="session")
def tenancy_server() -> Iterator[str]:
    """The DSN of a server's administrative role: of CP_TEST_DATABASE_URL, or of an embedded PostgreSQL."""
    from control_plane.settings import ServerForTests
    from control_plane.testing.servers import open_server

    given = ServerForTests().database_url
    with open_server(given.get_secret_value() if given else None) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def tenancy_installation(
    request: pytest.FixtureRequest, tenancy_portal: BlockingPortal, tenancy_server: str
) -> Iterator[Installation]:
    """A throw-away installation with two tenants in each isolation mode."""
    from control_plane.testing.installation import open_installation

    templates = request.config.getini("tenancy_templates")
    opening = open_installation(
        tenancy_server,
        templates=templates[0] if templates else None,
        template=request.config.getini("tenancy_template") or None,
        modes=_modes(request.config),
        roles=request.config.getini("tenancy_roles"),
    )
    with tenancy_portal.wrap_async_context_manager(opening) as installation:
        yield installation


@pytest.fixture(scope="session")
def tenancy_settings(tenancy_installation: Installation) -> Settings:
    """The settings with which an application joins the installation."""
    return tenancy_installation.settings


@pytest.fixture(scope="session")
def tenancy_environment(tenancy_settings: Settings) -> Iterator[Mapping[str, str]]:
    """The same settings as environment variables, which are set until the session ends."""
    from control_plane.testing.installation import environment

    variables = environment(tenancy_settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CP_ISSUERS", raising=False)  # tokens are the development issuer's, and no key set is fetched
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables


@pytest.fixture(scope="session")
def tenancy_app(request: pytest.FixtureRequest) -> FastAPI:
    """The application under test, of the option `tenancy_app`; override this fixture for anything else."""
    named = request.config.getini("tenancy_app")
    if not named:  # before a server is started for it
        pytest.fail(
            "Name the application: tenancy_app = 'package.module:app', or a fixture tenancy_app.", pytrace=False
        )
    from control_plane.testing.application import load_application

    request.getfixturevalue("tenancy_environment")
    return load_application(named, request.getfixturevalue("tenancy_settings"))


@pytest.fixture(scope="module")
def tenancy(
    tenancy_app: FastAPI, tenancy_installation: Installation, tenancy_portal: BlockingPortal
) -> Iterator[Tenancy]:
    """The application while it runs, its lifespan included, and its tenants."""
    from control_plane.testing.application import run_application

    with run_application(tenancy_app, tenancy_installation, tenancy_portal) as running:
        yield running


@pytest.fixture
def tenancy_pair(tenancy: Tenancy, tenancy_mode: str) -> tuple[Tenant, Tenant]:
    """Two tenants of one isolation mode; a test that asks for this runs once per mode."""
    return tenancy.pair(tenancy_mode)
