"""`install_tenancy`: identity, problem documents and tenant sessions for a FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import Response

from control_plane.errors import ConfigurationError, StaleEpoch, TenantMoving
from control_plane.identity.middleware import IdentityMiddleware
from control_plane.identity.verifier import TokenVerifier, build_verifier
from control_plane.pools.databases import Databases
from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools
from control_plane.pools.sessions import TenantSessions
from control_plane.problems import database_error, install_problems, problem_response
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings


def install_tenancy(app: FastAPI, settings: Settings) -> None:
    """Make `TenantSession` and `CurrentPrincipal` work in `app`; call it once, before the application starts.

    Adds the identity middleware of the service, answers every error with a problem document unless `app` has a more
    specific handler, and opens what sessions need around the application's own lifespan. `settings` are the service's:
    `Settings()` reads them from the environment. Raises `ConfigurationError`.
    """
    if settings.database_url is None or settings.secret_key is None:
        raise ConfigurationError(
            "The library joins an installation of the control plane, and does not know which.",
            hint="Set CP_DATABASE_URL and CP_SECRET_KEY to what the service has.",
        )
    verifier = build_verifier(settings)
    app.add_middleware(IdentityMiddleware, verifier=verifier)
    install_problems(app)
    app.add_exception_handler(DBAPIError, _answer_database_error)
    around = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        async with _open(app, settings, verifier), around(application) as state:
            yield state

    app.router.lifespan_context = lifespan


@asynccontextmanager
async def _open(app: FastAPI, settings: Settings, verifier: TokenVerifier) -> AsyncIterator[None]:
    assert settings.database_url is not None
    assert settings.secret_key is not None
    async with AsyncExitStack() as stack:
        box = SecretBox(settings.secret_key.get_secret_value())
        databases = Databases(settings.database_url.get_secret_value(), box, settings)
        stack.push_async_callback(databases.aclose)
        pools = RequestPools(databases, settings, full_reset=True)
        stack.push_async_callback(pools.aclose)
        sessions = TenantSessions(pools, Placements(databases))
        stack.push_async_callback(sessions.aclose)
        stack.push_async_callback(verifier.aclose)
        await verifier.start()
        app.state.tenant_sessions = sessions
        yield


async def _answer_database_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DBAPIError)
    # SQLAlchemy's copy of the driver's error has its SQLSTATE and not its kind.
    problem = database_error(getattr(error.orig, "__cause__", None) or error.orig or error)
    if isinstance(problem, StaleEpoch):  # also where the session looked again
        problem = TenantMoving()
    return problem_response(problem, request.url.path)
