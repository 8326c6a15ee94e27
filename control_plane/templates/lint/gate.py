"""Holds a template against every rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from control_plane.templates.lint import contracts, escapes, functions, kinds, tables, views
from control_plane.templates.lint.finding import Finding
from control_plane.templates.lint.rules import (
    CODES,
    HISTORY_RULES,
    REHEARSED,
    STATEMENT_RULES,
    Fault,
    History,
    VersionSource,
)
from control_plane.templates.lint.source import Source, Statement, Unparsable, Waiver
from control_plane.templates.script import Part
from control_plane.templates.template import Template, Version

# The rules register themselves where they are imported.
_RULES = (contracts, escapes, functions, kinds, tables, views)


def lint_template(template: Template, versions: Sequence[int] | None = None) -> list[Finding]:
    """What the text of the template breaks, in the order of files and lines; only in `versions`, where given."""
    wanted = set(versions if versions is not None else range(1, template.latest + 1))
    if not wanted:
        return []
    return sorted(_Lint(template).findings(wanted))


def waived(template: Template, version: int) -> dict[str, str]:
    """The rules about what a version takes away that a comment in its files waives, with the reasons."""
    found: dict[str, str] = {}
    for part in _parts(template.version(version)):
        try:
            waivers = Source(part.label, part.sql, part.api).waivers
        except Unparsable:
            continue
        found |= {each.rule: each.reason for each in waivers if each.rule in REHEARSED and each.rule and each.reason}
    return found


class _Lint:
    def __init__(self, template: Template) -> None:
        self.template = template
        self.found: list[Finding] = []

    def findings(self, wanted: set[int]) -> list[Finding]:
        """Versions before the wanted ones are read too, to compare with."""
        history: list[VersionSource] = []
        for version in self.template.versions[: max(wanted)]:
            sources = [source for part in _parts(version) if (source := self._parse(part))]
            history.append(VersionSource(version.number, sources))
            for statement in (each for source in sources if version.number in wanted for each in source.statements):
                for rules in STATEMENT_RULES:
                    for code, fault in rules(statement):
                        self._place(statement, code, fault)
        for history_rule in HISTORY_RULES:
            for placed, code, fault in history_rule(History(self.template.manifest, history)):
                self._place(placed, code, fault)
        for version_source in history:
            for source in version_source.sources:
                self.found += self._waivers(source)
        names = {self.template.version(number).name for number in wanted}
        return [each for each in dict.fromkeys(self.found) if each.file.partition("/")[0] in {*names, "template.toml"}]

    def _parse(self, part: Part) -> Source | None:
        try:
            return Source(part.label, part.sql, part.api)
        except Unparsable as error:
            fault = Fault(error.line, error.message, "write what PostgreSQL can parse")
            self.found.append(self._finding(part.label, "syntax", fault))
            return None

    def _place(self, statement: Statement | None, code: str, fault: Fault) -> None:
        for waiver in statement.waivers if statement else ():
            if waiver.rule == code and waiver.reason:
                waiver.used = True
                return
        self.found.append(self._finding(statement.source.label if statement else "template.toml", code, fault))

    def _waivers(self, source: Source) -> Iterator[Finding]:
        for waiver in source.waivers:
            if (problem := _problem(waiver)) is not None:
                instead = "write -- lint: allow <rule> because <reason> above the statement, or nothing"
                yield self._finding(source.label, "waiver", Fault(waiver.line, problem, instead))

    def _finding(self, label: str, code: str, fault: Fault) -> Finding:
        return Finding(self.template.name, label, fault.line, code, fault.message, fault.instead)


def _problem(waiver: Waiver) -> str | None:
    if waiver.rule is None:
        return f"'lint: {waiver.text}' cannot be understood"
    if waiver.rule not in CODES or waiver.rule in ("waiver", "syntax", "rehearsal"):
        return f"there is no rule '{waiver.rule}' to waive"
    if not waiver.reason:
        return f"the waiver of {waiver.rule} gives no reason"
    if not waiver.used and waiver.rule not in REHEARSED:
        return f"the waiver of {waiver.rule} has no effect"
    return None


def _parts(version: Version) -> Iterator[Part]:
    yield from version.parts()
    if version.smoke is not None:
        yield Part(f"{version.name}/smoke.sql", version.smoke, api=None)
