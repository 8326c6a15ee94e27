"""The tenant API: token → placement → connection → one gated statement → bytes.

Of a read nothing is parsed, validated or built in Python but the headers.
"""

from __future__ import annotations

from starlette.routing import Route

from control_plane.api.calls import CallFunction
from control_plane.api.endpoints import Services
from control_plane.api.read_lists import ReadList
from control_plane.api.reads import ReadOne


def routes(services: Services) -> list[Route]:
    """The routes below /api. `scope["state"]` has to hold the principal."""
    # Without methods: an endpoint answers the wrong ones itself, or /rpc/x would fall through to /{resource}/{id}.
    return [
        Route("/api/{version}/rpc/{function}", CallFunction(services), name="call_function"),
        Route("/api/{version}/{resource}", ReadList(services), name="read_list"),
        Route("/api/{version}/{resource}/{id}", ReadOne(services), name="read_one"),
    ]
