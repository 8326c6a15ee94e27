"""Break one line of a function for the length of a block, wherever the function has been imported to."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any


@contextmanager
def mutated(function: Any, old: str, new: str) -> Iterator[None]:
    """`function` (or method) with `new` in the place of `old` in its source, which must have it once."""
    assert isinstance(function, FunctionType)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} no longer has {old!r} once: the mutation is void"
    namespace: dict[str, Any] = {}
    code = compile(f"from __future__ import annotations\n{source.replace(old, new)}", function.__qualname__, "exec")
    exec(code, dict(function.__globals__), namespace)
    changed = namespace[function.__name__]
    kept = function.__code__
    function.__code__ = changed.__code__
    try:
        yield
    finally:
        function.__code__ = kept
