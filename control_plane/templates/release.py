"""Releasing a version: the gate stands before it, and its files may not change afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import TemplateRefused
from control_plane.registry import template_versions
from control_plane.templates.template import Template

if TYPE_CHECKING:
    from control_plane.templates.lint import Finding

_passed: set[tuple[str, tuple[str, ...]]] = set()  # templates that this process has held against the rules


async def release(session: AsyncSession, template: Template, upto: int) -> None:
    """Let new tenants begin at `upto`; nothing to do costs one query.

    Raises `TemplateChanged`, and `TemplateRefused` when a version that is released for the first time breaks a rule.
    """
    released = await template_versions.current(session, template) or 0
    if upto > released:
        await require_clean(template, released, upto)
        await template_versions.release(session, template, upto)


async def require_clean(template: Template, released: int, upto: int) -> None:
    """Raises `TemplateRefused` with what is wrong in the versions after `released`."""
    numbers = range(released + 1, upto + 1)
    key = (template.name, tuple(version.checksum for version in template.versions[:upto]))
    if numbers and key not in _passed:
        await asyncio.to_thread(_lint, template, numbers)
        _passed.add(key)


def _lint(template: Template, numbers: Sequence[int]) -> None:
    # Imported here: only a first release needs PostgreSQL's parser, and loading it takes a moment.
    from control_plane.templates.lint import lint_template

    if findings := lint_template(template, numbers):
        raise refusal(template, findings)


def refusal(template: Template, findings: Sequence[Finding], options: str = "") -> TemplateRefused:
    """`options` are those of `cp template lint` that show the same."""
    listed = ", ".join(sorted({finding.file.partition("/")[0] for finding in findings}))
    return TemplateRefused(
        f"The template '{template.name}' breaks rules and was not released: {listed}.",
        hint=f"Correct it, or waive a rule with a reason; cp template lint {template.name}{options} shows the same.",
        errors=[
            {"place": f"{each.file}:{each.line}", "rule": each.rule, "problem": each.message, "fix": each.instead}
            for each in findings
        ],
    )
