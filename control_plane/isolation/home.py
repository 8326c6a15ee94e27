"""A home to come: its names and its password."""

from __future__ import annotations

from uuid import UUID, uuid4

from control_plane.isolation.login import new_password
from control_plane.isolation.names import home_database, request_role, schema_name
from control_plane.registry.models import Cluster, Home
from control_plane.registry.secrets import SecretBox


def plan_home(
    isolation: str,
    installation_id: UUID,
    cluster: Cluster,
    template: str,
    box: SecretBox,
    *,
    copied_schema: str | None = None,
) -> Home:
    """`copied_schema` names the schema of a home that is the copy of a database, and so has one of its own."""
    home_id = uuid4()
    return Home(
        id=home_id,
        cluster_id=cluster.id,
        isolation=isolation,
        template=template,
        database=home_database(home_id) if copied_schema else cluster.database,
        schema_name=copied_schema or schema_name(home_id),
        role_name=request_role(installation_id, home_id),
        password=box.seal(new_password()),
    )
