"""A fleet on the first versions of the reference template, so that those to come change no number."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.settings import Settings
from control_plane.templates import Template, Templates
from tests.support.fleet import Fleet
from tests.support.templates import with_first_versions


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_first_versions(settings, tmp_path / "templates")


@pytest.fixture
def template(settings: Settings) -> Template:
    return Templates.load(settings.templates)["reference"]


@pytest.fixture
def fleet(databases: Databases, cluster: Cluster, installation_id: UUID, template: Template) -> Fleet:
    return Fleet(databases, cluster, installation_id, template)
