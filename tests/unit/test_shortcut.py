"""The shortcut and the framework's router agree on which endpoint gets a request, and with which parameters."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from control_plane.api.shortcut import Shortcut

PATHS = ("/api/{version}/deprecations", "/api/{version}/rpc/{function}", "/api/{version}/{resource}",
         "/api/{version}/{resource}/{id}")  # fmt: skip


class Endpoint:
    """Answers which of the routes it is and what it was given."""

    def __init__(self, path: str) -> None:
        self.path = path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if "fail" in scope["path_params"].values():
            raise RuntimeError("a secret of the program")
        body = {"path": self.path, "parameters": scope["path_params"], "method": scope["method"]}
        await JSONResponse(body)(scope, receive, send)


def routes() -> list[Route]:
    return [Route(path, Endpoint(path)) for path in PATHS]


async def ask(app: Any, method: str, path: str, **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app, **options)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/users", "/api/v1/users/7", "/api/v1/rpc/create", "/api/v1/rpc", "/api/v1/deprecations",
        "/api/v1/deprecations/7", "/api/v1/a%20b", "/api/v1/a%2Fb", "/api/v1/%C3%BC", "/api/v1/users/",
        "/api/v1", "/api", "/", "/api//users", "/api/v1//7", "/apis/v1/users", "/api/v1/users/7/more", "//api/v1/users",
        "/api/v1/users?a=/b/c", "/API/v1/users",
    ],
)  # fmt: skip
async def test_it_finds_what_the_router_finds(method: str, path: str) -> None:
    expected = await ask(Starlette(routes=routes()), method, path)
    found = await ask(Shortcut(routes(), Starlette(routes=routes())), method, path)
    assert (found.status_code, found.content) == (expected.status_code, expected.content)
    assert found.headers.get("location") == expected.headers.get("location")


async def test_what_fits_does_not_go_the_long_way() -> None:
    for path in ("/api/v1/users", "/api/v1/users/7", "/api/v1/rpc/create", "/api/v1/deprecations"):
        assert (await ask(Shortcut(routes(), Starlette()), "GET", path)).status_code == 200


async def test_a_failure_is_a_problem_that_tells_nothing() -> None:
    app = Shortcut(routes(), Starlette())
    answer = await ask(app, "GET", "/api/v1/fail", raise_app_exceptions=False)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["instance"] == "/api/v1/fail"
    assert "secret" not in answer.text


@pytest.mark.parametrize("route", [Route("/a/{b:int}", Endpoint("")), Route("/a", Endpoint(""), methods=["GET"])])
def test_a_route_that_is_more_than_a_path_is_refused(route: Route) -> None:
    with pytest.raises(ValueError, match="more than words and parameters"):
        Shortcut([route], Starlette())
