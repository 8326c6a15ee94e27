"""Templates for tests that need one that does not grow."""

from __future__ import annotations

import shutil
from pathlib import Path

from control_plane.settings import Settings


def with_first_versions(settings: Settings, into: Path, count: int = 3) -> Settings:
    """`settings` with the template `reference` alone, cut off after its first `count` versions."""
    shutil.copytree(settings.templates / "reference", into / "reference")
    for later in sorted((into / "reference" / "versions").iterdir())[count:]:
        shutil.rmtree(later)
    return settings.model_copy(update={"templates": into})
