"""`install_tenancy`: identity, problem documents and tenant sessions for a FastAPI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import Response

from control_plane.errors import StaleEpoch, TenantMoving
from control_plane.identity.middleware import IdentityMiddleware
from control_plane.identity.verifier import TokenVerifier, build_verifier
from control_plane.pools.feed import RegistryFeed
from control_plane.problems import database_error, install_problems, problem_response
from control_plane.settings import Settings
from control_plane.tenancy.opened import open_tenancy, require_installation


def install_tenancy(app: FastAPI, settings: Settings) -> None:
    """Make `TenantSession` and `CurrentPrincipal` work in `app`; call it once, before the application starts.

    Adds the identity middleware of the service, answers every error with a problem document unless `app` has a more
    specific handler, and opens what sessions need around the application's own lifespan. `settings` are the service's:
    `Settings()` reads them from the environment. Raises `ConfigurationError`.
    """
    require_installation(settings)
    verifier = build_verifier(settings)
    app.add_middleware(IdentityMiddleware, verifier=verifier)
    install_problems(app)
    app.add_exception_handler(DBAPIError, _answer_database_error)
    app.add_exception_handler(asyncpg.PostgresError, _answer_driver_error)
    around = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        async with _open(app, settings, verifier), around(application) as state:
            yield state

    app.router.lifespan_context = lifespan


@asynccontextmanager
async def _open(app: FastAPI, settings: Settings, verifier: TokenVerifier) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_tenancy(settings))
        feed = RegistryFeed(opened.databases.registry_dsn, settings, opened.placements, verifier.revocations)
        stack.push_async_callback(feed.aclose)
        stack.push_async_callback(verifier.aclose)
        await asyncio.gather(verifier.start(), feed.start())
        app.state.tenancy = opened
        yield


async def _answer_database_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DBAPIError)
    # SQLAlchemy's copy of the driver's error has its SQLSTATE and not its kind.
    return _answer(request, getattr(error.orig, "__cause__", None) or error.orig or error)


async def _answer_driver_error(request: Request, error: Exception) -> Response:
    return _answer(request, error)


def _answer(request: Request, error: BaseException) -> Response:
    problem = database_error(error)
    if isinstance(problem, StaleEpoch):  # also where the placement was looked up again
        problem = TenantMoving()
    return problem_response(problem, request.url.path)
