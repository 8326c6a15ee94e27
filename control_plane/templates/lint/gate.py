"""Holds a template against every rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

from control_plane.templates.lint import (
    columns,
    constraints,
    contracts,
    data,
    escapes,
    functions,
    indexes,
    kinds,
    locks,
    removals,
    tables,
    views,
)
from control_plane.templates.lint.finding import Finding
from control_plane.templates.lint.history import History, Step, VersionSource, steps
from control_plane.templates.lint.rules import (
    CODES,
    HISTORY_RULES,
    REHEARSED,
    STATEMENT_RULES,
    STEP_RULES,
    UNWAIVABLE,
    Fault,
    Placed,
)
from control_plane.templates.lint.source import Source, Statement, Unparsable, Waiver
from control_plane.templates.script import Part
from control_plane.templates.template import Template, Version

# The rules register themselves where they are imported.
_RULES = (columns, constraints, contracts, data, escapes, functions, indexes, kinds, locks, removals, tables, views)


def lint_template(template: Template, versions: Sequence[int] | None = None) -> list[Finding]:
    """What the text of the template breaks, in the order of files and lines; only in `versions`, where given."""
    wanted = set(versions if versions is not None else range(1, template.latest + 1))
    if not wanted:
        return []
    return sorted(_Lint(template).findings(wanted))


def waived(template: Template, version: int) -> dict[str, str]:
    """The rules about what a version does when it runs that a comment or template.toml waives, with the reasons."""
    found: dict[str, str] = {}
    name = template.version(version).name
    for part in _parts(template.version(version)):
        try:
            waivers = Source(part.label, part.sql, part.api).waivers
        except Unparsable:
            continue
        found |= {each.rule: each.reason for each in waivers if each.rule and each.reason}
    found |= {each.rule: each.reason for each in template.manifest.waivers if each.place.partition("/")[0] == name}
    return {rule: reason for rule, reason in found.items() if rule in REHEARSED}


class _Lint:
    def __init__(self, template: Template) -> None:
        self.template = template
        self.found: list[Finding] = []
        self._used: set[tuple[str, str]] = set()  # place and rule of the waivers of template.toml that were needed
        self._allowed = {(each.place, each.rule) for each in template.manifest.waivers}

    def findings(self, wanted: set[int]) -> list[Finding]:
        """Versions before the wanted ones are read too, to compare with."""
        versions = [
            VersionSource(version.number, [source for part in _parts(version) if (source := self._parse(part))])
            for version in self.template.versions[: max(wanted)]
        ]
        history = History(self.template.manifest, versions)
        for step in steps(history):
            if step.number in wanted:
                self._judge(step)
        for history_rule in HISTORY_RULES:
            self._place(history_rule(history))
        for source in (source for version in versions for source in version.sources):
            self.found += self._waivers(source)
        names = {self.template.version(number).name for number in wanted}
        self.found += self._released_waivers(names)
        return [each for each in dict.fromkeys(self.found) if each.file.partition("/")[0] in {*names, "template.toml"}]

    def _judge(self, step: Step) -> None:
        for statement in step.everything:
            for rules in STATEMENT_RULES:
                self._place((statement, code, fault) for code, fault in rules(statement))
        for step_rules in STEP_RULES:
            self._place(step_rules(step))

    def _parse(self, part: Part) -> Source | None:
        try:
            return Source(part.label, part.sql, part.api)
        except Unparsable as error:
            fault = Fault(error.line, error.message, "write what PostgreSQL can parse")
            self.found.append(self._finding(part.label, "syntax", fault))
            return None

    def _place(self, found: Iterable[Placed]) -> None:
        for statement, code, fault in found:
            if not self._is_waived(statement, code, fault):
                label = statement.source.label if statement else "template.toml"
                self.found.append(self._finding(label, code, fault))

    def _is_waived(self, statement: Statement | None, code: str, fault: Fault) -> bool:
        if statement is None:
            return False
        for waiver in statement.waivers:
            if waiver.rule == code and waiver.reason:
                waiver.used = True
                return True
        key = (f"{statement.source.label}:{fault.line}", code)
        self._used.add(key)
        return key in self._allowed

    def _waivers(self, source: Source) -> Iterator[Finding]:
        for waiver in source.waivers:
            if (problem := _problem(waiver)) is not None:
                instead = "write -- lint: allow <rule> because <reason> above the statement, or nothing"
                yield self._finding(source.label, "waiver", Fault(waiver.line, problem, instead))

    def _released_waivers(self, versions: Set[str]) -> Iterator[Finding]:
        """What is wrong with those of template.toml that are about these versions; later ones are still to come."""
        numbers = {name[:4] for name in versions}
        for entry in self.template.manifest.waivers:
            if entry.place[:4] not in numbers:
                continue
            waiver = Waiver(1, entry.place, entry.rule, entry.reason, (entry.place, entry.rule) in self._used)
            if (problem := _problem(waiver)) is not None:
                fault = Fault(1, f"{problem} at {entry.place}", "correct its place and its rule, or take it out")
                yield self._finding("template.toml", "waiver", fault)

    def _finding(self, label: str, code: str, fault: Fault) -> Finding:
        return Finding(self.template.name, label, fault.line, code, fault.message, fault.instead)


def _problem(waiver: Waiver) -> str | None:
    if waiver.rule is None:
        return f"'lint: {waiver.text}' cannot be understood"
    if waiver.rule not in CODES or waiver.rule in UNWAIVABLE:
        return f"there is no rule '{waiver.rule}' to waive"
    if not waiver.reason:
        return f"the waiver of {waiver.rule} gives no reason"
    if not waiver.used and waiver.rule not in REHEARSED:
        return f"the waiver of {waiver.rule} has no effect"
    return None


def _parts(version: Version) -> Iterator[Part]:
    yield from version.parts()
    for name, text in (("concurrent", version.concurrent), ("backfill", version.backfill), ("smoke", version.smoke)):
        if text is not None:
            yield Part(f"{version.name}/{name}.sql", text, api=None)
