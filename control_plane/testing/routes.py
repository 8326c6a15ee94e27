"""The routes of an application: what they are called with, and which of them answer without a tenant."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, routing
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute

from control_plane.tenancy.dependencies import TenantToken

DOCUMENTATION = frozenset({"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"})
READS, WRITES = frozenset({"GET"}), frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True)
class Route:
    """One method of one path. `query` are the names of its query parameters, `needed` those that it insists on;
    `template` is the path to be filled with `parameters`."""

    method: str
    path: str
    template: str
    parameters: tuple[str, ...]
    query: tuple[str, ...]
    needed: tuple[str, ...]
    demands_tenant: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def unbound_routes(app: FastAPI, public: Collection[str] = ()) -> list[str]:
    """The paths that neither demand a tenant's token nor stand in `public`, sorted.

    A mounted application, and any route that is none of FastAPI's, counts as unbound: nothing can be known of it.
    FastAPI's own documentation is public.
    """
    known = DOCUMENTATION | set(public)
    return sorted(
        {path for each in _every(app) if (path := _path(each)) not in known and not (_is_api(each) and _demands(each))}
    )


def routes_of(app: FastAPI) -> list[Route]:
    """Each method of each HTTP route that is FastAPI's, in order."""
    return [
        _route(each, method)
        for each in _every(app)
        if isinstance(_origin(each), APIRoute)
        for method in sorted(set(each.methods) & (READS | WRITES))
    ]


def paths_of(app: FastAPI) -> set[str]:
    """All paths, those of mounted applications and documentation included."""
    return {_path(each) for each in _every(app)}


def _every(app: FastAPI) -> Iterator[Any]:
    """All routes, with those of included routers, which newer releases of FastAPI no longer copy into the list."""
    contexts = getattr(routing, "iter_route_contexts", None)
    return iter(app.routes) if contexts is None else contexts(app.routes)


def _origin(route: Any) -> Any:
    return getattr(route, "original_route", route)


def _is_api(route: Any) -> bool:
    return isinstance(_origin(route), APIRoute | APIWebSocketRoute)


def _path(route: Any) -> str:
    return str(getattr(route, "path", None) or _origin(route))


def _route(route: Any, method: str) -> Route:
    fields = [field for each in _all(route.dependant) for field in each.query_params]
    return Route(
        method,
        _path(route),
        route.path_format,
        tuple(route.param_convertors),
        tuple(field.alias for field in fields),
        tuple(field.alias for field in fields if field.field_info.is_required()),
        _demands(route),
    )


def _demands(route: Any) -> bool:
    return any(isinstance(each.call, TenantToken) for each in _all(route.dependant))


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for each in dependant.dependencies:
        yield from _all(each)
