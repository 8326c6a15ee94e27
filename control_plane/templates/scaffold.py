"""A new template: a copy of the smallest one under its own name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from control_plane.errors import InvalidInput, TemplateExists
from control_plane.settings import shipped

STARTER = "starter"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def new_template(name: str, into: Path) -> Path:
    """Write the template `name` into the directory `into` and return its own directory.

    Raises `InvalidInput` for a name that no template may have, `TemplateExists` when something stands there already.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"'{name}' is no name for a template.",
            hint="1 to 40 characters: lower-case letters, digits and underscores, starting with a letter.",
        )
    target = into / name
    if target.exists():
        raise TemplateExists(f"{target} exists.")
    manifest = (shipped("tenant_templates") / STARTER / "template.toml").read_text("utf-8")
    _, _, rest = manifest.partition(f'name = "{STARTER}"\n')
    # The manifest comes last: a directory without one is no template yet.
    shutil.copytree(shipped("tenant_templates") / STARTER / "versions", target / "versions")
    (target / "template.toml").write_text(
        f'# What the API exposes of this template. SQL says how, this file says what.\nname = "{name}"\n{rest}', "utf-8"
    )
    return target
