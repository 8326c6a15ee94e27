"""What may not be released, though its text breaks no rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.errors import TemplateRefused
from control_plane.templates.release import require_clean
from tests.support.templates import write_sample
from tests.unit.templates.lint_cases import TABLE

INDEX = "CREATE INDEX CONCURRENTLY i ON tb_a (tenant_id, name)"


async def test_what_nothing_would_run_is_not_released(tmp_path: Path) -> None:
    template = write_sample(tmp_path, {"expand.sql": TABLE}, {"expand.sql": "", "concurrent.sql": INDEX})
    await require_clean(template, 0, 1)
    with pytest.raises(TemplateRefused, match="Version 2 of template 'sample' has concurrent"):
        await require_clean(template, 1, 2)
    await require_clean(template, 2, 2)
