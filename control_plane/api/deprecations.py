"""The deprecation register of an API version, as it stands for the caller's tenant."""

from __future__ import annotations

from starlette.types import Receive, Scope

from control_plane.api.endpoints import HEADERS, Answer, Endpoint, caller_of, require_no_query
from control_plane.api.media import JSON, accepted
from control_plane.api.versions import api_version, deprecation_headers
from control_plane.errors import NotFound
from control_plane.identity.principal import Principal
from control_plane.pools import gate
from control_plane.pools.placement import Placement


class ReadDeprecations(Endpoint):
    """GET /api/{version}/deprecations"""

    async def answer(self, principal: Principal, scope: Scope, receive: Receive) -> Answer:
        require_no_query(scope)
        accepted(scope["headers"], (JSON,))

        async def attempt(placement: Placement) -> Answer:
            template, pattern_version = self.templates[placement.template], placement.pattern_version
            version = api_version(template, pattern_version, scope["path_params"]["version"])
            template.require_api(version, pattern_version)
            async with self.pools.connection(placement) as connection:
                body = await gate.read_deprecations(connection, caller_of(principal, placement), version)
            if body is None:  # retired since the placement was read
                raise NotFound("There is no such API version.")
            return Answer(200, HEADERS + deprecation_headers(version, template.ending(version, pattern_version)), body)

        return await self.attempts.run(principal.tenant_id, attempt, repeatable=True)
