"""Released template versions: what new tenants get, and the checksums that may never change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import TemplateChanged
from control_plane.registry.models import TemplateVersion


class Version(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def checksum(self) -> str: ...


class Template(Protocol):
    """What this module needs of a template (the package `templates` stands above the registry)."""

    @property
    def name(self) -> str: ...
    @property
    def versions(self) -> Sequence[Version]: ...


async def release(session: AsyncSession, template: Template, upto: int) -> None:
    """Record the versions up to `upto` with their checksums; raises `TemplateChanged`.

    New tenants get the highest released version.
    """
    rows = [
        {"template": template.name, "version": version.number, "name": version.name, "checksum": version.checksum}
        for version in template.versions
        if version.number <= upto
    ]
    await session.execute(insert(TemplateVersion).values(rows).on_conflict_do_nothing())
    await current(session, template)


async def current(session: AsyncSession, template: Template) -> int | None:
    """The highest released version, None before the first release.

    Raises `TemplateChanged` when the files of a released version differ from what was released, or are gone.
    """
    query = select(TemplateVersion.version, TemplateVersion.checksum).where(TemplateVersion.template == template.name)
    released = {row.version: row.checksum for row in await session.execute(query)}
    found = {version.number: version.checksum for version in template.versions}
    changed = sorted(number for number, checksum in released.items() if found.get(number) != checksum)
    if changed:
        listed = ", ".join(str(number) for number in changed)
        raise TemplateChanged(f"Template {template.name!r}: released version {listed} was changed afterwards.")
    return max(released, default=None)


async def released(session: AsyncSession) -> dict[str, int]:
    """The highest released version of each template."""
    query = select(TemplateVersion.template, func.max(TemplateVersion.version)).group_by(TemplateVersion.template)
    return {row[0]: row[1] for row in await session.execute(query)}
