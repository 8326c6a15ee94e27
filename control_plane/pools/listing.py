"""What is asked of a resource, as values: which rows, in which order, in which form, and from which place on."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Condition(NamedTuple):
    """One comparison of a column. Its value is a parameter: text that is read as `type`, the very type of the column.

    No other comparison uses an index under row-level security. `in` takes a list of values, and `is` none: the `state`
    (null, not_null, true or false) is part of the condition.
    """

    column: str
    operator: str
    type: str
    negated: bool = False
    state: str | None = None


class Sort(NamedTuple):
    """A column of the order; nulls come where PostgreSQL puts them, last in a rising order, unless it is said."""

    column: str
    type: str
    descending: bool = False
    nulls_first: bool | None = None

    @property
    def natural(self) -> bool:
        """Nulls come where an index has them."""
        return self.nulls_first in (None, self.descending)

    def __str__(self) -> str:
        return f"{self.column}.desc" if self.descending else self.column


class Form(Enum):
    """What the documents are put together to."""

    ARRAY = "[…]"
    PAGE = '{"items": […], "page": {…}}'
    LINES = "one document per line"


class Way(NamedTuple):
    """How a page lies to the place that it begins at: after it in the order, or before it, and with its row or not."""

    forward: bool = True
    included: bool = False

    @property
    def letter(self) -> str:
        """What cursors of this way begin with."""
        return _LETTERS[self]

    @property
    def back(self) -> Way:
        """From a page with rows to the one on its other side."""
        return Way(not self.forward)

    @property
    def return_(self) -> Way:
        """From a page without rows back over the place that it began at."""
        return Way(not self.forward, not self.included)


_LETTERS = {Way(True): "n", Way(False): "p", Way(True, True): "N", Way(False, True): "P"}
WAYS = {letter: way for way, letter in _LETTERS.items()}


class Shape(NamedTuple):
    """What is asked of a resource, apart from the values."""

    order: tuple[Sort, ...]
    conditions: tuple[Condition, ...] = ()
    picked: bool = False  # of each document only some keys
    counted: bool = False  # also how many rows there are in all
    form: Form = Form.ARRAY
    cursors: bool = False  # also the cursors of the pages beside this one
    way: Way | None = None  # from a place on, and not from the first row
    version: str | None = None  # the column that says which version of a document a row has

    @property
    def uniform(self) -> bool:
        """The order goes one way in all columns, as a comparison of rows does."""
        return all(sort.natural and sort.descending == self.order[0].descending for sort in self.order)


class Listing(NamedTuple):
    """A shape with its values: those of the conditions, in their order without `is`, and limits in rows.

    `place` is the cursor without its letter; for lines it is what the batch before ended at.
    """

    shape: Shape
    limit: int
    offset: int = 0
    keys: tuple[str, ...] = ()
    values: tuple[str | tuple[str, ...], ...] = ()
    place: str | None = None

    def gone_on(self, place: str) -> Listing:
        """The batch of lines after `place`."""
        return self._replace(shape=self.shape._replace(way=Way()), place=place)


class Known(NamedTuple):
    """What a caller has: tags of answers, and what was `asked`, which a tag is good for."""

    asked: str = ""
    tags: tuple[str, ...] = ()  # one of them "*": whatever there is


class Page(NamedTuple):
    """`body` holds `rows` documents; None when its `tag` is one that the caller knows.

    `ahead` and `behind` are cursors, on the way of the page and against it, None where nothing is; `total` is
    None unless it was asked for. The next batch of lines begins after `place`.
    """

    body: bytes | None
    rows: int
    ahead: str | None = None
    total: int | None = None
    behind: str | None = None
    tag: str | None = None
    place: str | None = None
