"""The gate: what a template's SQL may not do, told from its text by PostgreSQL's own parser.

Loading the parser takes a moment, so this package is imported where a lint is due, inside of functions.
"""

from control_plane.templates.lint.finding import Finding
from control_plane.templates.lint.gate import lint_template, waived
from control_plane.templates.lint.rules import CODES

__all__ = ["CODES", "Finding", "lint_template", "waived"]
