"""Reads of a resource: what they share, and that of one document."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from starlette.types import Receive, Scope

from control_plane.api.endpoints import (
    HEADERS,
    JSON_TYPE,
    Answer,
    Endpoint,
    Services,
    caller_of,
    require_no_query,
)
from control_plane.api.query import plain_listing
from control_plane.api.versions import Header, api_version, deprecation_headers
from control_plane.api.wanted import Wanted, wanted
from control_plane.errors import InvalidInput, NotFound
from control_plane.identity.principal import Principal
from control_plane.pools import gate, lists
from control_plane.pools.listing import Known, Listing, Page
from control_plane.pools.placement import Placement
from control_plane.templates import Resource

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)

# Of what has a tag a copy may be kept, and has to be asked about each time. What else an answer depends on is named.
_KEPT: list[Header] = [
    JSON_TYPE,
    (b"cache-control", b"private, no-cache"),
    (b"vary", b"Authorization, Accept, Prefer, Range, Range-Unit"),
]


class Exposed(NamedTuple):
    """A resource as one API version of a home serves it, with the headers of its answers."""

    resource: Resource
    headers: list[Header]
    plain: Listing  # what is read when nothing is asked for


class Read(Endpoint):
    """An endpoint that reads a resource of the template."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._exposed = lru_cache(maxsize=1024)(self._find_resource)

    def exposed(self, placement: Placement, scope: Scope) -> Exposed:
        path = scope["path_params"]
        return self._exposed(placement.template, placement.pattern_version, path["version"], path["resource"])

    def count(self, placement: Placement, resource: Resource) -> None:
        if resource.counted:
            self.calls.count(placement.tenant_id, placement.template, resource.api_version, resource.name)

    async def read(
        self, principal: Principal, placement: Placement, resource: Resource, listing: Listing, known: Known | None
    ) -> Page:
        async with self.pools.connection(placement) as connection:
            return await lists.read_list(
                connection,
                caller_of(principal, placement),
                placement.schema_name,
                resource.api_version,
                resource.name,
                listing,
                known,
            )

    def _find_resource(self, template: str, pattern_version: int, version: str, name: str) -> Exposed:
        found = self.templates[template]
        number = api_version(found, pattern_version, version)
        resource = found.resource(name, api_version=number, pattern_version=pattern_version)
        headers = HEADERS if resource.version is None else _KEPT
        ending = deprecation_headers(number, resource.deprecation, listed=resource.counted)
        return Exposed(resource, headers + ending, plain_listing(resource))


class ReadOne(Read):
    """GET /api/{version}/{resource}/{id}"""

    async def answer(self, principal: Principal, scope: Scope, receive: Receive) -> Answer:
        path = scope["path_params"]
        require_no_query(scope)
        if _UUID.fullmatch(path["id"]) is None:
            raise InvalidInput("The id is not a uuid.")
        id_ = UUID(path["id"])
        _, tags = wanted(scope["headers"], b"")

        async def attempt(placement: Placement) -> tuple[list[Header], gate.Document | None]:
            resource, headers, _ = self.exposed(placement, scope)
            known = None
            if resource.version is not None:
                known = Known(question_of(placement, resource, None, b""), tags)
            async with self.pools.connection(placement) as connection:
                document = await gate.read_one(
                    connection,
                    caller_of(principal, placement),
                    placement.schema_name,
                    resource.api_version,
                    resource.name,
                    id_,
                    version=resource.version,
                    known=known,
                )
            self.count(placement, resource)
            return headers, document

        headers, document = await self.attempts.run(principal.tenant_id, attempt, repeatable=True)
        if document is None:
            raise NotFound("There is no such document.")
        if document.tag is not None:
            headers = [*headers, etag_header(document.tag)]
        return unchanged(headers) if document.body is None else Answer(200, headers, document.body)


def question_of(placement: Placement, resource: Resource, asked: Wanted | None, query: bytes) -> str:
    """What a tag is good for, besides who asks and what is shown: a home of another version, or elsewhere, may answer
    with other documents of the same versions."""
    form = None if asked is None else (asked.media.value, asked.counted, asked.range)
    return repr((placement.epoch, placement.pattern_version, resource.api_version, resource.name, form, query))


def etag_header(tag: str) -> Header:
    return b"etag", b'"%b"' % tag.encode()


def unchanged(headers: list[Header]) -> Answer:
    return Answer(304, headers[1:], b"")  # without the type of a body that it does not have
