"""What one version may not take from the API views that an earlier one made: the part that the text alone tells.

The rest is told by running the version on rows (`cp template lint --scratch`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from control_plane.templates.lint.history import History
from control_plane.templates.lint.rules import Fault, Placed, history_rule
from control_plane.templates.lint.source import Node, Statement, inner, kind_of
from control_plane.templates.lint.views import output_name, output_names
from control_plane.templates.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Shape:
    """A view as a version left it; `keys` are those of `data`, None where the text alone does not tell."""

    columns: tuple[str | None, ...]
    keys: frozenset[str] | None


def may_go(manifest: Manifest, version: int, api: int, resource: str, field: str | None) -> bool:
    """Whether the register says that a field, or all of its resource or API version, is removed by then.

    Whether its sunset has passed is asked when the version is released: what a text says does not change with the day.
    """
    return any(
        entry.api == api
        and entry.resource in (None, resource)
        and entry.field in (None, field)
        and entry.removed(version)
        for entry in manifest.deprecations
    )


@history_rule
def views_keep_what_they_show(history: History) -> Iterator[Placed]:
    shapes: dict[tuple[int | None, str], Shape] = {}
    for version in history.versions:
        for statement in (statement for source in version.sources for statement in source.statements):
            if statement.kind == "DropStmt":
                for name in _dropped(statement):
                    shapes.pop((statement.api, name), None)
            if statement.kind != "ViewStmt":
                continue
            place = (statement.api, statement.node.view.relname)
            shape = Shape(tuple(output_names(statement.node)), _document_keys(statement))
            if place in shapes:
                yield from _compare(history.manifest, version.number, statement, shapes[place], shape)
            shapes[place] = shape
    yield from _register(history.manifest, history.versions[-1].number, shapes)


def _compare(manifest: Manifest, version: int, statement: Statement, before: Shape, after: Shape) -> Iterator[Placed]:
    name = statement.node.view.relname
    if after.columns[: len(before.columns)] != before.columns:
        lost = [column for column in before.columns if column not in after.columns]
        problem = f"loses {', '.join(map(str, lost))}" if lost else "changes the order of its columns"
        fault = Fault(statement.line, f"{name} {problem}", "keep the columns as they were and add new ones at the end")
        yield statement, "api-column", fault
    if statement.api is None or before.keys is None or after.keys is None:
        return
    for key in sorted(before.keys - after.keys):
        if not may_go(manifest, version, statement.api, name, key):
            fault = Fault(
                statement.line,
                f"{name} of API version {statement.api} loses the key '{key}'",
                f"announce it under [[deprecations]] with removed_in = {version}, or leave it to a new API version",
            )
            yield statement, "api-key", fault


def _register(manifest: Manifest, latest: int, shapes: dict[tuple[int | None, str], Shape]) -> Iterator[Placed]:
    for entry in manifest.deprecations:
        if entry.since > latest or entry.resource is None:
            continue
        declared = manifest.resources.get(entry.resource)
        if entry.api not in manifest.api or declared is None or entry.api not in (declared.api or (entry.api,)):
            yield None, "deprecation", Fault(1, f"there is no {entry} to deprecate", "name a declared resource")
            continue
        shape = shapes.get((entry.api, entry.resource))
        if shape is None or shape.keys is None or entry.field is None or "." in entry.field:
            continue
        if entry.removed(latest) and entry.field in shape.keys:
            problem = f"{entry} is still there after version {entry.removed_in}"
            yield None, "deprecation", Fault(1, problem, "take it out there, or say a later version")
        elif not entry.removed(latest) and entry.field not in shape.keys:
            yield None, "deprecation", Fault(1, f"{entry} is not there", "keep it until a version given as removed_in")


def _dropped(statement: Statement) -> Iterator[str]:
    for each in statement.node.objects:
        kind, names = kind_of(each)
        if kind == "List":
            yield inner(names.items[-1]).sval


def _document_keys(statement: Statement) -> frozenset[str] | None:
    select = inner(statement.node.query)
    for target in map(inner, getattr(select, "target_list", ())):
        if output_name(target) == "data":
            return _keys(inner(target.val))
    return None


def _keys(expression: Node) -> frozenset[str] | None:
    """The keys of jsonb_build_object('a', …), and of such objects put together with ||."""
    kind, node = kind_of(expression)
    if kind == "FuncCall" and inner(node.funcname[-1]).sval == "jsonb_build_object":
        names = [inner(argument) for argument in list(node.args)[::2]]
        if all(type(name).DESCRIPTOR.name == "A_Const" and name.HasField("sval") for name in names):
            return frozenset(name.sval.sval for name in names)
    if kind == "A_Expr" and [inner(part).sval for part in node.name] == ["||"]:
        left, right = _keys(node.lexpr), _keys(node.rexpr)
        return left | right if left is not None and right is not None else None
    return None
