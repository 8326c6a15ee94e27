"""Fixtures of the modules that migrate a fleet with its registry, rather than single homes."""

from __future__ import annotations

from uuid import UUID

import pytest

from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.templates import Templates
from tests.support.fleet import Fleet


@pytest.fixture
def fleet(databases: Databases, cluster: Cluster, installation_id: UUID) -> Fleet:
    """An installation without tenants, on the shipped template."""
    template = Templates.load(databases.settings.templates)["reference"]
    return Fleet(databases, cluster, installation_id, template)
