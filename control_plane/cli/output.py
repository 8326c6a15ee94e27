"""What commands print: tables for people, JSON for scripts, errors with code and hint on stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from pathlib import PurePath
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from control_plane.errors import ControlPlaneError


def print_json(value: Any) -> None:
    """One document on stdout; records and lists of records are understood."""
    print(json.dumps(_plain(value), ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # A pipe has no width: rich would cut its columns to 80.
    Console(width=None if sys.stdout.isatty() else 10_000, markup=False, highlight=False, soft_wrap=True).print(table)


def print_error(error: ControlPlaneError, *, as_json: bool) -> None:
    if as_json:
        problem = {"code": error.code, "status": error.status, "message": error.message}
        optional = {"details": error.details, "hint": error.hint, "errors": error.errors}
        present = {name: value for name, value in optional.items() if value}
        print(json.dumps(problem | present, ensure_ascii=False), file=sys.stderr)
        return
    print(f"error: {error.message} ({error.code})", file=sys.stderr)
    if error.details:
        print(f"  {error.details}", file=sys.stderr)
    for each in error.errors:
        print("  " + ", ".join(f"{name}: {value}" for name, value in each.items()), file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, UUID | PurePath):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    return value


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value)
