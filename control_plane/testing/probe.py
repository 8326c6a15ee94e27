"""A route among those of the application, whose endpoint does what a test wants with the session it is given."""

from __future__ import annotations

import concurrent.futures
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.tenancy import TenantSession
from control_plane.testing.application import Tenancy, Tenant

T = TypeVar("T")

_SEEN = text("SELECT tenancy.current_tenant_id(), pg_backend_pid()")


class Seen(NamedTuple):
    """For whom a session works, and in which backend."""

    tenant: str
    backend: int


@dataclass
class Probe:
    """Work in an endpoint of the application, with the session of the caller's request."""

    path: str
    _work: Callable[[AsyncSession], Awaitable[Any]] | None = None
    _result: Any = None

    def ask(self, tenant: Tenant, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """What `work` returned; raises AssertionError when it failed."""
        self._work = work
        answer = tenant.client.post(self.path)
        assert answer.is_success, f"a request of {tenant} failed: {answer.status_code} {answer.text}"
        result: T = self._result
        return result

    def post(self, tenant: Tenant, work: Callable[[AsyncSession], Awaitable[None]]) -> None:
        """Run `work`, whatever becomes of it."""
        self._work = work
        with suppress(concurrent.futures.CancelledError):
            tenant.client.post(self.path)

    async def answer(self, session: TenantSession) -> None:
        assert self._work is not None
        self._result = await self._work(session)


async def seen(session: AsyncSession) -> Seen:
    tenant, backend = (await session.execute(_SEEN)).one()
    return Seen(str(tenant), backend)


@contextmanager
def probe(tenancy: Tenancy) -> Iterator[Probe]:
    """A route with a name that nobody knows, until the block ends."""
    opened = Probe(f"/{secrets.token_hex(12)}")
    routes = tenancy.app.router.routes
    before = list(routes)
    tenancy.app.add_api_route(opened.path, opened.answer, methods=["POST"], include_in_schema=False)
    routes.insert(0, routes.pop())  # before one that takes every path
    try:
        yield opened
    finally:
        routes[:] = before
