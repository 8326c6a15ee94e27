"""An application while it runs on the loop of the session, and its tenants as clients from any thread and loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar
from uuid import UUID

import httpx
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI

from control_plane.errors import ConfigurationError
from control_plane.settings import Settings
from control_plane.tenancy.opened import OpenTenancy, open_tenancy
from control_plane.testing.installation import Installation, Onboarded

PATIENCE = 60.0  # seconds that an answer may take
TURN = 20.0  # seconds that a request waits for the only connection
BASE_URL = "http://localhost"

T = TypeVar("T")


class FailedAfterAnswer(Exception):
    """The application answered, and then something of the request failed that nobody would have noticed."""


@dataclass(frozen=True)
class Tenant:
    """A tenant with clients that send its token: `client` for plain code, `async_client` for coroutines on any loop.

    `app` is the application that they call, for `tenant_context(tenant.id, tenant.user_id, of=tenant.app)`.
    """

    slug: str
    id: UUID
    isolation: str
    user_id: UUID
    token: str = field(repr=False)
    client: httpx.Client = field(repr=False)
    async_client: httpx.AsyncClient = field(repr=False)
    app: FastAPI = field(repr=False)

    def __str__(self) -> str:
        return self.slug


class Tenancy:
    """A running application on an installation, and the tenants that call it."""

    def __init__(self, app: FastAPI, installation: Installation, portal: BlockingPortal) -> None:
        self.app = app
        self.installation = installation
        self._portal = portal
        transport = _InProcess(app, portal)
        self.anonymous = httpx.Client(transport=transport, base_url=BASE_URL)
        self.tenants = [_tenant(each, transport, app) for each in installation.tenants]

    def pair(self, isolation: str) -> tuple[Tenant, Tenant]:
        """The two tenants that live in this way."""
        first, second = (tenant for tenant in self.tenants if tenant.isolation == isolation)
        return first, second

    def run(self, work: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """`await work(*arguments)` on the loop of the application, whose connections `of=app` can use there."""
        return self._portal.call(work, *arguments)

    def rows(self, tenant: Tenant) -> dict[str, str]:
        """Per table of the tenant the number of its rows and a digest of them, read as their owner."""
        return self.run(self.installation.rows, tenant.id)

    @contextmanager
    def one_connection(self) -> Iterator[None]:
        """Until the block ends, the application has a single connection for each home."""
        with self._portal.wrap_async_context_manager(self._narrow()):
            yield

    @asynccontextmanager
    async def _narrow(self) -> AsyncIterator[None]:
        tight = {"shared_pool_size": 1, "dedicated_pool_size": 1, "acquire_timeout": TURN}
        usual: OpenTenancy = self.app.state.tenancy
        async with open_tenancy(self.installation.settings.model_copy(update=tight)) as narrow:
            self.app.state.tenancy = narrow
            try:
                yield
            finally:
                self.app.state.tenancy = usual


@contextmanager
def run_application(app: FastAPI, installation: Installation, portal: BlockingPortal) -> Iterator[Tenancy]:
    """Run the lifespan of `app`. Raises `ConfigurationError` for an application without `install_tenancy`."""
    with portal.wrap_async_context_manager(app.router.lifespan_context(app)):
        if not isinstance(getattr(app.state, "tenancy", None), OpenTenancy):
            raise ConfigurationError("The application has no tenancy.", hint="Call install_tenancy(app, settings).")
        yield Tenancy(app, installation, portal)


def load_application(named: str, settings: Settings) -> FastAPI:
    """The application `module:name`: itself, or what the function of that name makes of `settings`.

    Raises `ConfigurationError` when it is neither.
    """
    module, _, name = named.partition(":")
    found = getattr(import_module(module), name or "app", None)
    made = found(settings) if callable(found) and not isinstance(found, FastAPI) else found
    if not isinstance(made, FastAPI):
        raise ConfigurationError(
            f"{named} is no application, and no function that makes one.",
            hint="tenancy_app = 'package.module:app' or 'package.module:create_app'; create_app(settings) returns it.",
        )
    return made


def _tenant(onboarded: Onboarded, transport: _InProcess, app: FastAPI) -> Tenant:
    options: dict[str, Any] = {
        "transport": transport,
        "base_url": BASE_URL,
        "headers": {"Authorization": f"Bearer {onboarded.token}"},
    }
    return Tenant(
        onboarded.slug,
        onboarded.id,
        onboarded.isolation,
        onboarded.user_id,
        onboarded.token,
        httpx.Client(**options),
        httpx.AsyncClient(**options),
        app,
    )


class _InProcess(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Requests to an application, answered on its own loop, wherever they come from."""

    def __init__(self, app: FastAPI, portal: BlockingPortal) -> None:
        self._app = app
        self._portal = portal
        self._loop = portal.call(asyncio.get_running_loop)
        self._asgi = httpx.ASGITransport(self._watched)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return self._portal.call(self._answer, request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        if asyncio.get_running_loop() is self._loop:
            return await self._answer(request)
        return await asyncio.wrap_future(self._portal.start_task_soon(self._answer, request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._asgi.handle_async_request(request)
                body = b"".join([part async for part in answer.aiter_raw()])
        except TimeoutError as error:
            message = f"{request.method} {request.url.path} did not end within {PATIENCE:.0f} s"
            raise httpx.ReadTimeout(message, request=request) from error
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(body))

    async def _watched(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        status: int | None = None

        async def watched_send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            if status is None:
                raise
            if status < 500:  # the server's log would be all that ever tells of it
                raise FailedAfterAnswer(
                    f"{scope['method']} {scope['path']} was answered with {status}, and then failed: "
                    f"{type(error).__name__}: {error}\nA tenant's session ends with its endpoint: background tasks and "
                    "streamed bodies have to open their own, with tenant_context()."
                ) from error
