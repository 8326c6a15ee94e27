"""What a rule has to say about a line of a template."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """`file` is relative to the template's `versions/`, or `template.toml`; `line` counts from 1."""

    template: str
    file: str
    line: int
    rule: str
    message: str
    instead: str

    def __str__(self) -> str:
        return f"{self.template}/{self.file}:{self.line}: {self.rule}: {self.message}; {self.instead}"
