"""Which routes of an application answer without a tenant."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute

from control_plane.tenancy.dependencies import TenantToken

DOCUMENTATION = frozenset({"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"})


def unbound_routes(app: FastAPI, public: Collection[str] = ()) -> list[str]:
    """The paths that neither demand a tenant's token nor stand in `public`, sorted.

    A mounted application, and any route that is none of FastAPI's, counts as unbound: nothing can be known of it.
    FastAPI's own documentation is public.
    """
    known = DOCUMENTATION | set(public)
    return sorted(
        path
        for route in app.routes
        if (path := str(getattr(route, "path", route))) not in known
        and not (isinstance(route, APIRoute | APIWebSocketRoute) and _demands_tenant(route.dependant))
    )


def _demands_tenant(dependant: Dependant) -> bool:
    return any(isinstance(each.call, TenantToken) for each in _all(dependant))


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for each in dependant.dependencies:
        yield from _all(each)
