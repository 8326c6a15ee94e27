"""Templates for tests that need one that does not grow, or one that is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from control_plane.settings import Settings
from control_plane.templates import Template, Templates

SAMPLE = """
name = "sample"
[api]
1 = { since = 1 }
[[default_api]]
api = 1
[resources.things]
columns = { id = "uuid" }
order = ["id"]
"""


def with_first_versions(settings: Settings, into: Path, count: int = 3) -> Settings:
    """`settings` with the template `reference` alone, cut off after its first `count` versions, with their waivers."""
    shutil.copytree(settings.templates / "reference", into / "reference")
    manifest = into / "reference" / "template.toml"
    text, *waivers = manifest.read_text("utf-8").split("\n[[waivers]]\n")
    kept = [each for each in waivers if int(each.partition('"')[2][:4]) <= count]
    manifest.write_text("\n[[waivers]]\n".join([text, *kept]), "utf-8")
    for later in sorted((into / "reference" / "versions").iterdir())[count:]:
        shutil.rmtree(later)
    return settings.model_copy(update={"templates": into})


def with_next_version(
    settings: Settings, into: Path, name: str, files: Mapping[str, str], edits: Mapping[str, str]
) -> Settings:
    """The first three versions and `0004_<name>` made of `files`; `edits` are texts of template.toml to replace.

    An empty text to replace stands for the end of the file.
    """
    cut = with_first_versions(settings, into)
    version = into / "reference" / "versions" / f"0004_{name}"
    version.mkdir()
    for file, content in files.items():
        (version / file).write_text(content, encoding="utf-8")
    manifest = into / "reference" / "template.toml"
    text = manifest.read_text(encoding="utf-8")
    for old, new in edits.items():
        assert text.count(old) == 1 or not old, f"{old!r} does not stand in template.toml once"
        text = text.replace(old, new) if old else f"{text}\n{new}"
    manifest.write_text(text, encoding="utf-8")
    return cut


def write_sample(directory: Path, *versions: dict[str, str], manifest: str = "") -> Template:
    """The template `sample` in `directory`, with the files of each version; it declares the resource `things`."""
    root = directory / "sample"
    root.mkdir(parents=True)
    (root / "template.toml").write_text(SAMPLE + manifest)
    for number, files in enumerate(versions, 1):
        (root / "versions" / f"{number:04}_step").mkdir(parents=True)
        for name, sql in files.items():
            (root / "versions" / f"{number:04}_step" / name).write_text(sql)
    return Templates.load(directory)["sample"]
