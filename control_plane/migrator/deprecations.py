"""The deprecation registers of all templates, with who still calls what they list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from control_plane.pools.databases import Databases
from control_plane.registry import deprecated_calls
from control_plane.registry.deprecated_calls import Use
from control_plane.templates import Deprecation, Template

DAYS = 30


@dataclass(frozen=True, slots=True)
class DeprecationUse:
    """An entry of a register; `tenants` and `calls` of the last `DAYS` days.

    A call of a resource counts as a possible use of each of its deprecated fields: nobody knows which one he reads.
    """

    template: str
    api: int
    resource: str | None
    field: str | None
    replacement: str | None
    since: int
    announced: date
    sunset: date
    removed_in: int | None
    tenants: int
    calls: int


async def deprecations(
    databases: Databases, templates: Mapping[str, Template], only: str | None = None
) -> list[DeprecationUse]:
    """Every entry in the order of the registers; `only` names one template. Raises `TemplateNotFound`."""
    chosen = [templates[only]] if only is not None else list(templates.values())
    async with databases.registry() as session:
        use = await deprecated_calls.recent(session, DAYS)
    return [_counted(template.name, entry, use) for template in chosen for entry in template.manifest.deprecations]


def _counted(template: str, entry: Deprecation, use: Mapping[tuple[str, int, str], Use]) -> DeprecationUse:
    matching = list(_matching(template, entry, use))
    return DeprecationUse(
        template=template,
        tenants=len(frozenset[object]().union(*(each.tenants for each in matching))),
        calls=sum(each.calls for each in matching),
        **entry.model_dump(),
    )


def _matching(template: str, entry: Deprecation, use: Mapping[tuple[str, int, str], Use]) -> Iterator[Use]:
    for (of_template, api, resource), found in use.items():
        if (of_template, api) == (template, entry.api) and entry.resource in (None, resource):
            yield found
