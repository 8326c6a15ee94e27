"""The tenant API: token → placement → connection → one gated statement → bytes.

Plain ASGI endpoints: of a read nothing is parsed, validated or built in Python but the headers. The tenant comes from
the verified token and from nowhere else, and what can be refused is refused before a connection is taken.
"""

from __future__ import annotations

from starlette.routing import Route

from control_plane.api.calls import CallFunction
from control_plane.api.deprecations import ReadDeprecations
from control_plane.api.endpoints import Services
from control_plane.api.read_lists import ReadList
from control_plane.api.reads import ReadOne


def routes(services: Services) -> list[Route]:
    """The routes below /api, in the order in which they are tried. `scope["state"]` has to hold the principal."""
    # Without methods: an endpoint answers the wrong ones itself, or /rpc/x would fall through to /{resource}/{id}.
    return [
        Route("/api/{version}/rpc/{function}", CallFunction(services), name="call_function"),
        Route("/api/{version}/deprecations", ReadDeprecations(services), name="read_deprecations"),
        Route("/api/{version}/{resource}", ReadList(services), name="read_list"),
        Route("/api/{version}/{resource}/{id}", ReadOne(services), name="read_one"),
    ]
