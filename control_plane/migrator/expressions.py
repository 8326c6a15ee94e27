"""Whether two definitions that PostgreSQL has printed say the same.

It prints `a BETWEEN 1 AND 2 AND b` as `((a >= 1) AND (a <= 2)) AND b`, and what it reads there without the inner
parentheses. So a definition that was made from a printed one may be printed in another way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Texts and quoted names are whole; every character is part of some token.
_TOKEN = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\b(?:AND|OR)\b|[()]|[^'"()]+?(?=\b(?:AND|OR)\b|['"()]|$)|.""", re.S
)

Node = list["str | Node"]


def same(one: str, other: str) -> bool:
    """Whether they differ by no more than parentheses around a part of one chain of AND, or of OR."""
    return one == other or _flat(one) == _flat(other)


def _flat(text: str) -> str:
    return "".join(_printed(_chained(_read(text))))


def _read(text: str) -> Node:
    """The tokens, with a list for what is between parentheses."""
    stack: list[Node] = [[]]
    for part in _TOKEN.findall(text):
        if part == "(":
            stack.append([])
        elif part == ")" and len(stack) > 1:
            inner = stack.pop()
            stack[-1].append(inner)
        else:
            stack[-1].append(part)
    while len(stack) > 1:  # is no expression: leave it as it was
        inner = stack.pop()
        stack[-1] += ["(", *inner]
    return stack[0]


def _chained(node: Node) -> Node:
    """Without the parentheses that a chain does not need."""
    own = _operator(node)
    flat: Node = []
    for each in node:
        if isinstance(each, str):
            flat.append(each)
            continue
        inner = _chained(each)
        flat += inner if own is not None and own == _operator(inner) else [inner]
    return flat


def _operator(node: Node) -> str | None:
    """AND or OR where that is all that stands between the parentheses of `node`."""
    between = {each.strip() for each in node if isinstance(each, str)} - {""}
    return between.pop() if between in ({"AND"}, {"OR"}) else None


def _printed(node: Node) -> Iterator[str]:
    for each in node:
        if isinstance(each, str):
            yield each
        else:
            yield "("
            yield from _printed(each)
            yield ")"
