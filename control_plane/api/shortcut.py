"""The way of the tenant API's requests past the framework, whose layers and routes would cost more than they do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from starlette.middleware.errors import ServerErrorMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.problems import answer_unknown


class _Path(NamedTuple):
    """A route's path, cut at its slashes: at each place a word or the name of a parameter."""

    words: tuple[tuple[int, str], ...]
    parameters: tuple[tuple[int, str], ...]
    app: ASGIApp

    @classmethod
    def of(cls, route: Route) -> _Path:
        parts = list(enumerate(route.path.split("/")))
        parameters = [(place, part[1:-1]) for place, part in parts if part.startswith("{") and part.endswith("}")]
        if any(":" in name for _, name in parameters) or route.methods:
            raise ValueError(f"the route {route.path} is more than words and parameters")
        places = {place for place, _ in parameters}
        return cls(tuple(part for part in parts if part[0] not in places), tuple(parameters), route.app)


class Shortcut:
    """Serves `routes`, the first that fits, and leaves all other requests to `otherwise`.

    What it serves misses all middleware inside of `otherwise`; the routes answer failures and limit bodies themselves.
    """

    def __init__(self, routes: Iterable[Route], otherwise: ASGIApp) -> None:
        self._otherwise = otherwise
        self._by_length: dict[int, list[_Path]] = {}
        for route in routes:
            path = _Path.of(route)._replace(app=ServerErrorMiddleware(route.app, handler=answer_unknown))
            self._by_length.setdefault(route.path.count("/"), []).append(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = (self._find(scope) if scope["type"] == "http" else None) or self._otherwise
        await app(scope, receive, send)

    def _find(self, scope: Scope) -> ASGIApp | None:
        path: str = scope["path"]
        if scope.get("root_path"):
            return None
        parts = path.split("/")
        for words, parameters, app in self._by_length.get(len(parts) - 1, ()):
            if all(parts[place] == word for place, word in words):
                found = {name: parts[place] for place, name in parameters}
                if all(found.values()):
                    scope["path_params"] = found
                    return app
        return None
