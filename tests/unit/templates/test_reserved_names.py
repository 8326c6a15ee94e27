"""Addresses below an API version that are no resources: no template may name one like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.errors import TemplateInvalid
from tests.support.templates import write_sample


@pytest.mark.parametrize("name", ["deprecations", "rpc"])
def test_a_resource_is_not_named_like_another_address(tmp_path: Path, name: str) -> None:
    manifest = f'[resources.{name}]\ncolumns = {{ id = "uuid" }}\norder = ["id"]\n'
    with pytest.raises(TemplateInvalid, match=f"must not be named like other addresses: \\['{name}'\\]"):
        write_sample(tmp_path, {"expand.sql": "SELECT 1;"}, manifest=manifest)
