"""What `template.toml` may say of a resource that is read as pages and with tags."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from control_plane.templates.manifest import DeclaredResource

NOTES: dict[str, Any] = {"columns": {"id": "uuid", "cursor": "text", "version": "bigint"}, "order": ["id"]}


def test_a_resource_may_name_the_version_of_its_documents() -> None:
    assert DeclaredResource.model_validate(NOTES).version is None
    assert DeclaredResource.model_validate({**NOTES, "version": "version"}).version == "version"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": "etag"}, r"version must name declared columns, not \['etag'\]"),
        ({"filters": {"cursor": ["eq"]}}, r"filters must not be named like other parameters: \['cursor'\]"),
    ],
)
def test_what_has_no_sense_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DeclaredResource.model_validate({**NOTES, **changed})
